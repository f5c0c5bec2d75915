"""Checks of a run directory before it is changed: may this experiment begin or continue in it?"""

import shutil
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gnflow.data.digests import hash_file
from gnflow.errors import SpecError
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import format_resolved, load
from gnflow.train import disk, offending, provenance, repository, results
from gnflow.train.changes import Differences, is_about_end, is_extendable, is_refused, require_no_look_ahead
from gnflow.train.journal import JOURNAL

CHECKPOINTS, PLAN = "checkpoints", "plan.json"
LOGS = "logs"
"""What processes other than the first print."""
SUPERSEDED = ".superseded"
# The spec is deleted last: as long as it exists, the rest of the run can be recognised.
OWN = (
    LOGS,
    results.SUMMARY, results.METRICS, results.MODEL, results.SAMPLES, offending.OFFENDING, CHECKPOINTS, JOURNAL, PLAN,
    provenance.FILE, repository.DIFF, "mlflow.json", "tensorboard", "wandb", results.EXPERIMENT,
)  # fmt: skip
# `dvc pull` or git may restore these files without the rest.
OUTPUTS = (results.SUMMARY, results.METRICS, results.MODEL)
MISSING = "-"


def is_run(directory: Path) -> bool:
    """Return whether the directory holds a run."""
    return (directory / results.EXPERIMENT).is_file()


def has_begun(directory: Path) -> bool:
    """Return whether the run has recorded anything. A run that stopped at a wrong path or at missing data has not."""
    journal = directory / JOURNAL
    return (
        (journal.is_file() and journal.stat().st_size > 0)
        or any((directory / CHECKPOINTS).glob("step_*"))
        or (directory / results.SUMMARY).exists()
    )


def require_ours(directory: Path, experiment: Experiment, replacing: bool, extend: bool = False) -> Differences:
    """Return the differences between the existing run and this one if it may continue as this one; empty for a new run.

    `replacing` allows another run to be replaced, and `extend` allows this run to end later.
    Raises SpecError if the directory holds something else: a run of another spec, or no run at all.
    """
    if not is_run(directory):
        names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
        strangers = [name for name in names if name not in (OWN if replacing else OUTPUTS) and not name.startswith(".")]
        if strangers:
            raise SpecError(f"{directory} is not empty and holds no run ({strangers[0]}); give another --run-dir")
        return {}
    if replacing or not has_begun(directory):
        return {}
    differing = find_differences(directory, experiment)
    if is_refused(differing, experiment, extend):
        longer = is_extendable(differing, experiment)
        width = max(len(key) for key in differing)
        lines = [f"  {key:<{width}}  {there} -> {now}" for key, (there, now) in differing.items()]
        raise SpecError(
            f"{directory} holds a run of another spec (there -> now):\n"
            + "\n".join(lines)
            + ("\n--extend lets the existing run continue to the new end. Or give" if longer else "\nGive")
            + " this one another name or --run-dir; or --supersede, which moves the existing run aside; "
            + "or --fresh, which deletes it."
        )
    if any(map(is_about_end, differing)):
        require_no_look_ahead(experiment)
    return differing


def find_differences(directory: Path, experiment: Experiment) -> Differences:
    """Return the keys whose values differ, with both values. Raises SpecError if the stored spec cannot be read."""
    path = directory / results.EXPERIMENT
    text = format_resolved(experiment)
    try:
        stored = _resolve_with_defaults(path)
        there = {} if stored == text else dict(_flatten(_parse_tree(stored)))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise SpecError(f"{path} cannot be read ({error}); --fresh deletes the existing run") from error
    now = {} if stored == text else dict(_flatten(_parse_tree(text)))
    keys = [*now, *(key for key in there if key not in now)]
    return {key: (there.get(key, MISSING), now.get(key, MISSING)) for key in keys if there.get(key) != now.get(key)}


def establish(directory: Path, experiment: Experiment, plan: Mapping[str, object], changed: bool = False) -> None:
    """Write the spec and the plan, and remove the summary of an earlier session. Raises DiskProblem."""
    if changed:
        # The old weights go first, so that they are never taken for those of the new end.
        with disk.guard_write(directory):
            shutil.rmtree(directory / results.MODEL, ignore_errors=True)
    if changed or not has_begun(directory):
        disk.write(directory / results.EXPERIMENT, format_resolved(experiment).encode())
    disk.write_json(directory / PLAN, plan)
    with disk.guard_write(directory):
        (directory / results.SUMMARY).unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Delete the run in this directory, but no file that gnflow has not written. Raises DiskProblem."""
    with disk.guard_write(directory):
        for name in OWN:
            path = directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def set_aside(directory: Path) -> Path | None:
    """Move the run in this directory to `.superseded/` beside it, under the digest of its spec. Raises DiskProblem.

    The spec moves last, so that the next call continues an interrupted move, into the same place.
    """
    if not is_run(directory):
        return None
    spec = hash_file(directory / results.EXPERIMENT)[:12]
    aside = next(path for path in _generate_places(directory, spec) if not is_run(path))
    with disk.guard_write(aside):
        aside.mkdir(parents=True, exist_ok=True)
        for name in OWN:
            if (directory / name).exists():
                (directory / name).replace(aside / name)
        disk.sync(aside)
        disk.sync(directory)
    return aside


def _generate_places(directory: Path, spec: str) -> Iterator[Path]:
    for number in count(1):
        yield directory.parent / SUPERSEDED / f"{directory.name}-{spec}{f'-{number}' if number > 1 else ''}"


def _resolve_with_defaults(path: Path) -> str:
    """Resolve a stored spec as this version does, so that keys added since then have their defaults."""
    try:
        return format_resolved(load(path).experiment)
    except SpecError:
        return path.read_text()


def _parse_tree(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


def _flatten(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    match value:
        case Mapping() if value:
            for key, child in value.items():
                yield from _flatten(child, f"{path}.{key}" if path else str(key))
        case list() if any(isinstance(item, Mapping) for item in value):
            for index, child in enumerate(value):
                yield from _flatten(child, f"{path}[{index}]")
        case None:
            yield path, "null"
        case bool():
            yield path, str(value).lower()
        case _:
            yield path, str(value)
