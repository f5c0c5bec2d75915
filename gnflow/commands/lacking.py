"""What a run of a spec will lack on this machine: packages and files, looked for without reading any of them."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import assert_never

from gnflow.data.sources import package, shakespeare
from gnflow.data.sources.named import named
from gnflow.data.sources.paths import existing
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import (
    BPE,
    Bytes,
    Documents,
    Files,
    HuggingFace,
    Package,
    PretrainedTokenizer,
    Shakespeare,
    Tokens,
)
from gnflow.spec.experiment import Experiment
from gnflow.spec.multimodal import Digits, ImageFiles, ImageHub, Multimodal, PretrainedVQ
from gnflow.spec.training import Checkpoint, Mlflow
from gnflow.track.location import check_available
from gnflow.workspace import Workspace

Source = Documents | Tokens | Digits | ImageFiles | ImageHub
WEIGHTS = "params.safetensors"


def lacking(experiment: Experiment, workspace: Workspace) -> list[str]:
    """A sentence for each thing; what is needed only where data is not prepared yet is asked for all the same."""
    return [problem for check in _checks(experiment, workspace) if (problem := _problem(check))]


def _problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except (DataError, EnvironmentProblem) as problem:
        return "; ".join(str(problem).splitlines())
    return None


def _checks(experiment: Experiment, workspace: Workspace) -> Iterator[Callable[[], object]]:
    data, root = experiment.data, workspace.root
    yield lambda: _source(data.source, workspace)
    yield lambda: _tokenizer(data.tokenizer, root)
    if isinstance(data, Multimodal):
        text, images = data.text, data.image_tokenizer
        if text is not None:
            yield lambda: _source(text, workspace)
        if isinstance(images, PretrainedVQ):
            yield lambda: _require("transformers", "hf", "a pretrained image tokenizer")
            yield lambda: existing(f"{images.path}/config.json", root, "data.image_tokenizer.path")
    if isinstance(start := experiment.training.start, Checkpoint):
        yield lambda: _held(root / start.path, WEIGHTS, "training.start.path")
    if isinstance(experiment.tracking, Mlflow):
        yield check_available


def _source(source: Source, workspace: Workspace) -> None:
    root = workspace.root
    match source:
        case Shakespeare():
            if not any(workspace.data.glob("shakespeare-*/")):
                shakespeare.require_installed()
        case Files():
            named(source.paths, source.held_out, root)
        case Package():
            named(source.paths, source.held_out, package.located(source))
        case HuggingFace():
            _require("datasets", "hf", "a huggingface source")
        case Tokens(train=train, held_out=held_out):
            existing(train, root, "data.source.train")
            if held_out:
                existing(held_out, root, "data.source.held_out")
        case Digits():
            _require("sklearn", "images", "the source of digits")
        case ImageFiles():
            named(source.paths, source.held_out, root)
            _require("PIL", "images", "reading images")
        case ImageHub():
            _require("PIL", "images", "reading images")
        case _:
            assert_never(source)


def _tokenizer(tokenizer: BPE | PretrainedTokenizer | Bytes | None, root: Path) -> None:
    if isinstance(tokenizer, PretrainedTokenizer):
        _held(root / tokenizer.path, "tokenizer.json", "data.tokenizer.path")
    if not isinstance(tokenizer, Bytes):
        _require("tokenizers", "", "a tokenizer")


def _held(path: Path, name: str, key: str) -> None:
    """Raises DataError unless there is a file at `path`, or one of that name in it."""
    if not path.is_file() and not (path / name).is_file():
        also = "" if path.suffix else f", and no {name} in it"
        raise DataError(f"{key}: there is no file {path}{also}")


def _require(module: str, extra: str, what: str) -> None:
    if importlib.util.find_spec(module) is None:
        install = f"'gnflow[{extra}]'" if extra else module
        raise EnvironmentProblem(
            f"{what} needs the package {module}, which is not installed\nrun: pip install {install}"
        )
