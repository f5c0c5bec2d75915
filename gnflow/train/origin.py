"""Find the files of the weights that a run starts from, and identify them by a digest."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from gnflow.data.digests import Digests
from gnflow.errors import GnflowError
from gnflow.models.huggingface.pretrained import find_weights
from gnflow.spec.experiment import Experiment
from gnflow.spec.huggingface import HuggingFaceModel
from gnflow.spec.training import Checkpoint, Pretrained
from gnflow.train.checkpoint import PARAMS
from gnflow.train.provenance import read_digest
from gnflow.workspace import Workspace

KEY = "weights"
CHANGED = "weights_changed"  # name of an event
REMEMBER_FROM = 1 << 20  # bytes


class Origin(NamedTuple):
    """The path of starting weights as the spec names it, and their SHA-256 digest; empty if they cannot be read."""

    path: str
    sha256: str

    def __str__(self) -> str:
        found = f"SHA-256 {self.sha256[:12]}" if self.sha256 else "which cannot be read"
        return f"{self.path} ({found})"


def find_origin(experiment: Experiment, workspace: Workspace) -> Origin | None:
    """Return the weights that a run starts from; None if it draws them or warms them up.

    The digest of several files is that of their names and digests.
    """
    model, start = experiment.model, experiment.training.start
    match start:
        case Pretrained() if isinstance(model, HuggingFaceModel):
            path = model.path
        case Checkpoint():
            path = start.path
        case _:
            return None
    digests = Digests(workspace.cache / "weights.json")
    try:
        found = {file.name: digests.sha256(file, REMEMBER_FROM) for file in _list_files(workspace.root / path)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, GnflowError):
        return Origin(path, "")
    digests.save()
    whole = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return Origin(path, next(iter(found.values())) if len(found) == 1 else whole)


def describe_change(directory: Path, origin: Origin | None) -> str | None:
    """Say how the starting weights differ from those that the run in `directory` began with; None if they do not."""
    before = read_digest(directory, KEY)
    if origin is None or before is None or before == origin.sha256:
        return None
    now = f"are now {origin.sha256[:12]}" if origin.sha256 else "cannot be read any more"
    return (
        f"the weights in {origin.path} had SHA-256 {before[:12]} when this run began, and {now}; "
        "the run continues from its own checkpoint, and only a new one would start from them"
    )


def _list_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    index = find_weights(path)
    if index is None:
        return [path / PARAMS]
    if index.suffix != ".json":
        return [index]
    shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    return [index, *(path / shard for shard in shards)]
