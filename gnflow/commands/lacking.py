"""Find the packages and files that a run of a spec lacks on this machine, without reading any of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

from gnflow.data.sources.needs import require
from gnflow.data.sources.paths import find_existing
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import BPE, Bytes, PretrainedTokenizer
from gnflow.spec.experiment import Experiment
from gnflow.spec.factory import check_needs
from gnflow.spec.huggingface import WEIGHTS as FOREIGN
from gnflow.spec.huggingface import HuggingFaceModel
from gnflow.spec.multimodal import Multimodal, PretrainedVQ
from gnflow.spec.tracking import TrackerKind
from gnflow.spec.training import Checkpoint, Pretrained
from gnflow.workspace import Workspace

WEIGHTS = "params.safetensors"


def find_missing(experiment: Experiment, workspace: Workspace) -> list[str]:
    """Return a sentence for each missing package or file, including those that only the preparation of data needs."""
    return [problem for check in _list_checks(experiment, workspace) if (problem := _find_problem(check))]


def _find_problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except (DataError, EnvironmentProblem) as problem:
        return "; ".join(str(problem).splitlines())
    return None


def _list_checks(experiment: Experiment, workspace: Workspace) -> Iterator[Callable[[], object]]:
    data, root = experiment.data, workspace.root
    yield lambda: check_needs(data.source, root)
    yield lambda: _check_tokenizer(data.tokenizer if isinstance(data, Multimodal) else data.cut_by, root)
    if isinstance(data, Multimodal):
        text, images = data.text, data.image_tokenizer
        if text is not None:
            yield lambda: check_needs(text, root)
        if isinstance(images, PretrainedVQ):
            yield lambda: require("transformers", "hf", "a pretrained image tokenizer")
            yield lambda: find_existing(f"{images.path}/config.json", root, "data.image_tokenizer.path")
    if isinstance(model := experiment.model, HuggingFaceModel):
        yield lambda: require("transformers", "hf", "a model of kind `huggingface`")
        if isinstance(experiment.training.start, Pretrained):
            yield lambda: _require_weights(root / model.path, "model.path")
    start = experiment.training.start
    if isinstance(start, Checkpoint) and not (isinstance(model, HuggingFaceModel) and _has_weights(root / start.path)):
        yield lambda: _require_file(root / start.path, WEIGHTS, "training.start.path")
    if isinstance(tracking := experiment.tracking, TrackerKind):
        yield lambda: check_needs(tracking, root)


def _check_tokenizer(tokenizer: BPE | PretrainedTokenizer | Bytes | None, root: Path) -> None:
    if isinstance(tokenizer, PretrainedTokenizer):
        _require_file(root / tokenizer.path, "tokenizer.json", "data.tokenizer.path")
    if not isinstance(tokenizer, Bytes | None):
        require("tokenizers", "", "a tokenizer")


def _has_weights(directory: Path) -> bool:
    return any((directory / name).is_file() for name in FOREIGN)


def _require_weights(directory: Path, key: str) -> None:
    if not _has_weights(directory):
        raise DataError(f"{key}: there is no {FOREIGN[0]} in {directory}, which `start: pretrained` reads")


def _require_file(path: Path, name: str, key: str) -> None:
    """Raise DataError unless `path` is a file, or a directory with a file `name`. `key` is the key in the spec."""
    if not path.is_file() and not (path / name).is_file():
        also = "" if path.suffix else f", and no {name} in it"
        raise DataError(f"{key}: there is no file {path}{also}")
