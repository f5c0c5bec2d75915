"""What a run of a spec will lack on this machine: packages and files, looked for without reading any of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

from gnflow.data.sources.needs import require
from gnflow.data.sources.paths import existing
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import BPE, Bytes, PretrainedTokenizer, SourceKind
from gnflow.spec.experiment import Experiment
from gnflow.spec.factory import guard_plugin, import_function
from gnflow.spec.multimodal import ImageKind, Multimodal, PretrainedVQ
from gnflow.spec.training import Checkpoint, Mlflow
from gnflow.track.location import check_available
from gnflow.workspace import Workspace

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
    yield lambda: _source(data.source, root)
    yield lambda: _tokenizer(data.tokenizer if isinstance(data, Multimodal) else data.cut_by, root)
    if isinstance(data, Multimodal):
        text, images = data.text, data.image_tokenizer
        if text is not None:
            yield lambda: _source(text, root)
        if isinstance(images, PretrainedVQ):
            yield lambda: require("transformers", "hf", "a pretrained image tokenizer")
            yield lambda: existing(f"{images.path}/config.json", root, "data.image_tokenizer.path")
    if isinstance(start := experiment.training.start, Checkpoint):
        yield lambda: _held(root / start.path, WEIGHTS, "training.start.path")
    if isinstance(experiment.tracking, Mlflow):
        yield check_available


def _source(source: SourceKind | ImageKind, root: Path) -> None:
    if source.needs:
        needs = import_function(source, "needs")
        with guard_plugin(source, f"`{source.needs}`"):
            needs(source, root)


def _tokenizer(tokenizer: BPE | PretrainedTokenizer | Bytes | None, root: Path) -> None:
    if isinstance(tokenizer, PretrainedTokenizer):
        _held(root / tokenizer.path, "tokenizer.json", "data.tokenizer.path")
    if not isinstance(tokenizer, Bytes | None):
        require("tokenizers", "", "a tokenizer")


def _held(path: Path, name: str, key: str) -> None:
    """Raises DataError unless there is a file at `path`, or one of that name in it."""
    if not path.is_file() and not (path / name).is_file():
        also = "" if path.suffix else f", and no {name} in it"
        raise DataError(f"{key}: there is no file {path}{also}")
