"""The description of a run for MLflow besides its metrics: parameters, tags and status."""

import getpass
import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

from gnflow.records import Status
from gnflow.track import dvc_lock

LONGEST_KEY = 250
LONGEST_PARAMETER = 6000
LONGEST_TAG = 5000

IDENTITY = "gnflow.identity"
STUDY = "gnflow.study"
SOURCE = {"mlflow.source.name": "gnflow", "mlflow.source.type": "LOCAL"}
ARTIFACTS = ("experiment.yaml", "plan.json", "provenance.json", "summary.json")
SAMPLES = "samples"
STATUS: Mapping[str, Status] = {
    "complete": "FINISHED",
    "preempted": "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
}


class Description(NamedTuple):
    """The content of `experiment.yaml` and `provenance.json` of a run; empty for a file that is absent."""

    directory: Path
    spec: Mapping[str, object]
    provenance: Mapping[str, object]

    @property
    def group(self) -> str:
        """The MLflow experiment that the run belongs to."""
        return find_text(self.spec, "tracking", "experiment") or "gnflow"

    @property
    def study(self) -> str | None:
        """The study that the run belongs to."""
        return find_text(self.spec, "tracking", "study")

    @property
    def title(self) -> str:
        """The name of the run's directory; for a run inside a study's directory, the path from the arm on."""
        place = self.directory.resolve()
        above = [parent.name for parent in place.parents]
        depth = above.index(self.study) if self.study in above else 0
        return "/".join(place.parts[-1 - depth :])

    @property
    def parameters(self) -> dict[str, str]:
        """The resolved spec, flattened (`optimizer.inner.learning_rate` -> `0.02`), within MLflow's limits."""
        return {
            key[:LONGEST_KEY]: value[: LONGEST_PARAMETER - 1] + "…" if len(value) > LONGEST_PARAMETER else value
            for key, value in flatten(self.spec)
        }

    @property
    def tags(self) -> dict[str, str]:
        """Directory, versions, commit, digests of spec and data, and entry of `dvc.lock`."""
        commit, locked = find_text(self.provenance, "git", "commit"), dvc_lock.find_entry(self.directory)
        found = {
            **SOURCE,
            "mlflow.user": _find_user(),
            "mlflow.source.git.commit": commit,
            "gnflow.run_directory": str(self.directory.resolve()),
            "gnflow.version": importlib.metadata.version("gnflow"),
            "gnflow.spec_digest": find_text(self.provenance, "digests", "spec"),
            "gnflow.data_digest": find_text(self.provenance, "digests", "data"),
            "gnflow.git_commit": commit,
            "gnflow.git_dirty": find_text(self.provenance, "git", "dirty"),
            STUDY: self.study,
            "gnflow.dvc_stage": locked.stage if locked else None,
            "gnflow.dvc_lock": locked.digest if locked else None,
        }
        return {key: value[:LONGEST_TAG] for key, value in found.items() if value is not None}


def describe(directory: Path) -> Description:
    """Read the description of a run."""
    try:
        spec = YAML(typ="safe", pure=True).load(directory / "experiment.yaml")
    except FileNotFoundError:
        spec = {}
    return Description(directory, spec if isinstance(spec, dict) else {}, read_json(directory / "provenance.json"))


def list_artifacts(directory: Path) -> list[Path]:
    """List the existing files of a run directory that MLflow gets: ARTIFACTS and the sheets of samples."""
    sheets = sorted((directory / SAMPLES).glob("step_*"))
    return [path for path in (*(directory / name for name in ARTIFACTS), *sheets) if path.is_file()]


def flatten(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Iterate over (dotted key, value as text) for every value of a plain tree."""
    match value:
        case Mapping():
            for key, child in value.items():
                yield from flatten(child, f"{path}.{key}" if path else str(key))
        case list() | tuple() if any(isinstance(item, Mapping) for item in value):
            for index, child in enumerate(value):
                yield from flatten(child, f"{path}.{index}")
        case str():
            yield path, value
        case _:
            yield path, json.dumps(value, default=str)


def find_text(tree: Mapping[str, object], *path: str) -> str | None:
    """Return the value under `path` as text; None if there is none."""
    value: object = tree
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else value if isinstance(value, str) else json.dumps(value)


def _find_user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no entry for its user
        return None


def read_status(directory: Path, otherwise: Status) -> Status:
    """Translate the status in the summary of a run into the word that trackers are given."""
    return STATUS.get(str(read_json(directory / "summary.json").get("status")), otherwise)


def make_metric_key(name: str) -> str:
    """Replace the characters of `name` that MLflow refuses."""
    parts: Sequence[str] = re.sub(r"[^\w/.\- :]", "_", name).split("/")
    return "/".join(part for part in parts if part.strip("."))[:LONGEST_KEY] or "_"


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object; empty if there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
