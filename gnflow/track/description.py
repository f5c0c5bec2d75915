"""What MLflow is told about a run besides its metrics: parameters, tags, status."""

import getpass
import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML

LONGEST_KEY = 250
LONGEST_PARAMETER = 6000
LONGEST_TAG = 5000

IDENTITY = "gnflow.identity"
ARTIFACTS = ("experiment.yaml", "plan.json", "provenance.json", "summary.json")
STATUS = {"complete": "FINISHED", "preempted": "KILLED", "interrupted": "KILLED", "diverged": "FAILED"}


def parameters(directory: Path) -> dict[str, str]:
    """The resolved spec, flattened: `optimizer.inner.learning_rate` -> `0.02`, within MLflow's limits."""
    return {
        key[:LONGEST_KEY]: value[: LONGEST_PARAMETER - 1] + "…" if len(value) > LONGEST_PARAMETER else value
        for key, value in leaves(specification(directory))
    }


def specification(directory: Path) -> Mapping[str, object]:
    """`experiment.yaml` as a plain tree."""
    try:
        tree = YAML(typ="safe", pure=True).load(directory / "experiment.yaml")
    except FileNotFoundError:
        return {}
    return tree if isinstance(tree, dict) else {}


def group(directory: Path) -> str:
    """The MLflow experiment that the run belongs to."""
    tracking = specification(directory).get("tracking")
    return str(tracking.get("experiment", "gnflow")) if isinstance(tracking, Mapping) else "gnflow"


def leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value as text) for every value of a plain tree."""
    match value:
        case Mapping():
            for key, child in value.items():
                yield from leaves(child, f"{path}.{key}" if path else str(key))
        case list() | tuple() if any(isinstance(item, Mapping) for item in value):
            for index, child in enumerate(value):
                yield from leaves(child, f"{path}.{index}")
        case str():
            yield path, value
        case _:
            yield path, json.dumps(value, default=str)


def tags(directory: Path) -> dict[str, str]:
    """Where the run comes from: directory, versions, commit, digests of spec and data."""
    provenance = read_json(directory / "provenance.json")
    found = {
        "mlflow.source.name": "gnflow",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "mlflow.source.git.commit": _find(provenance, "git", "commit"),
        "gnflow.run_directory": str(directory.resolve()),
        "gnflow.version": importlib.metadata.version("gnflow"),
        "gnflow.spec_digest": _find(provenance, "digests", "spec"),
        "gnflow.data_digest": _find(provenance, "digests", "data"),
        "gnflow.git_commit": _find(provenance, "git", "commit"),
        "gnflow.git_dirty": _find(provenance, "git", "dirty"),
    }
    return {key: value[:LONGEST_TAG] for key, value in found.items() if value is not None}


def _find(tree: Mapping[str, object], *path: str) -> str | None:
    value: object = tree
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else value if isinstance(value, str) else json.dumps(value)


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return None


def status(directory: Path, otherwise: str) -> str:
    """MLflow's word for how the run ended, by its summary."""
    return STATUS.get(str(read_json(directory / "summary.json").get("status")), otherwise)


def metric_key(name: str) -> str:
    """`name` with what MLflow refuses replaced."""
    parts: Sequence[str] = re.sub(r"[^\w/.\- :]", "_", name).split("/")
    return "/".join(part for part in parts if part.strip("."))[:LONGEST_KEY] or "_"


def read_json(path: Path) -> dict[str, object]:
    """A JSON object, or an empty one where there is none or only a part of one."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
