"""`gnflow rerun RUN`: repeat a run from its own directory, and say whether it agrees."""

import json as encoder
import math
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from gnflow.compiler import toolchain
from gnflow.errors import Diverged, Preempted, SpecError
from gnflow.study import state
from gnflow.study.find import find
from gnflow.train import disk
from gnflow.train.journal import JOURNAL, Record, Step, read
from gnflow.train.run import Run
from gnflow.workspace import Workspace

if TYPE_CHECKING:
    from gnflow.study.agreement import Agreement, Difference
    from gnflow.study.circumstances import Changes

DISAGREES = 1


class Repetition:
    """An observer that ends the repeated run after step `last`, as SIGTERM would."""

    def __init__(self, last: int | None) -> None:
        self.last = last
        self.reached = False

    def hear(self, record: Record) -> None:
        """Stop the run if this was the last step to repeat."""
        if isinstance(record, Step) and record.step == self.last and not self.reached:
            self.reached = True
            signal.raise_signal(signal.SIGTERM)


def rerun(run: Path, *, keep: Path | None = None, json: bool = False) -> int:
    """Repeat a run, and print the changes since then and the verdict. Return 1 if the results disagree, else 0.

    A repetition that agrees is removed, unless `keep` names a directory for it. Raises the errors of `gnflow run`.
    """
    found = find(run)
    if not read(found.directory / JOURNAL).steps:
        raise SpecError(f"{found.directory} has recorded no step, so there is nothing to repeat")
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise SpecError(f"{keep} exists already; give --keep a new directory")
    with _open_place(found.directory, keep) as place:
        again, changed = _repeat(found, place, Console(stderr=json))
        from gnflow.study.agreement import measure_agreement

        agreed = measure_agreement(found, again)
        agrees = agreed.verdict != "different"
        kept = None if agrees and keep is None else place
        if json:
            print(encoder.dumps(_make_json(found, agreed, changed, kept), indent=2))
        else:
            print(f"{found.directory} {_describe_verdict(agreed, changed)}")
            if kept is not None:
                print(f"the repetition is in {kept}")
        if agrees and keep is None:
            shutil.rmtree(place)
    return 0 if agrees else DISAGREES


@contextmanager
def _open_place(directory: Path, keep: Path | None) -> Iterator[Path]:
    """Open the directory to repeat the run in. A temporary directory is removed after an error."""
    if keep is not None:
        yield keep
        return
    beside = directory.resolve().parent
    with disk.guard_write(beside):
        place = Path(tempfile.mkdtemp(prefix=f".rerun_{directory.resolve().name}_", dir=beside))
        place.chmod(0o755)  # a directory that is kept is a run like any other
    try:
        yield place
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _repeat(found: Run, place: Path, console: Console) -> "tuple[Run, Changes]":
    workspace = Workspace.find_for_run(found.directory)
    toolchain.settle(workspace)
    from gnflow.compiler.plan import Plan
    from gnflow.study.circumstances import Changes, find_changes
    from gnflow.train.display import Display
    from gnflow.train.loop import run as train

    display = Display(console)
    repetition = Repetition(_find_last_step(found))
    changed: Changes = {}

    @contextmanager
    def watch(plan: Plan, directory: Path) -> Iterator[Repetition]:
        changed.update(find_changes(found, directory))
        for name, (there, here) in changed.items():
            display.say(f"warning: {name} was {there}, is {here}")
        yield repetition

    def say(line: str) -> None:
        if not repetition.reached:
            display.say(line)

    try:
        train(found.experiment, workspace, place, watches=[watch, display.watch], report=say)
    except Diverged:
        if found.summary.get("status") != "diverged":
            raise
    except Preempted:
        if not repetition.reached:
            raise
    return Run.load(place), changed


def _find_last_step(found: Run) -> int | None:
    """Return the step to stop after; None if the run ended by itself."""
    ended = state.find_status(found) in ("complete", "diverged")
    return None if ended else max(read(found.directory / JOURNAL).steps)


def _describe_verdict(agreed: "Agreement", changed: "Changes") -> str:
    over = f"over {agreed.steps} steps"
    match agreed.verdict:
        case "identical":
            return f"agrees bit for bit {over}, {_describe_weights(agreed)}"
        case "rounding":
            expected = (
                f"identical bits were not expected ({', '.join(changed)} changed)"
                if changed
                else "identical bits were expected, since no recorded property of code and machine has changed"
            )
            largest = f"largest relative difference {_describe_largest(agreed)}, {agreed.tolerance:g} allowed"
            return f"agrees within rounding {over} ({largest}), {_describe_weights(agreed)}; {expected}"
        case "different":
            why = f" ({', '.join(changed)} changed)" if changed else ""
            if agreed.first is None:
                return f"disagrees{why}: every record is the same, {_describe_weights(agreed)}"
            return f"disagrees from step {agreed.first.step} on{why}: {_describe_first(agreed.first)}"


def _describe_largest(agreed: "Agreement") -> str:
    if agreed.largest is None:
        return "0"
    return f"{agreed.largest.relative:.1e} at step {agreed.largest.step}, {agreed.largest.column}"


def _describe_first(first: "Difference") -> str:
    if first.column == "step":
        return "the step was not recorded" if first.there is None else "the step is not reached"
    there, here = ("nothing" if value is None else repr(value) for value in (first.there, first.here))
    return f"{first.column} was {there}, is {here}"


def _describe_weights(agreed: "Agreement") -> str:
    match agreed.weights:
        case None:
            return "no weights are kept to compare"
        case (step, True, _):
            return f"weights of step {step} identical"
        case (step, False, relative):
            return f"weights of step {step} differ by {relative:.1e} of their norm"


def _make_json(found: Run, agreed: "Agreement", changed: "Changes", kept: Path | None) -> dict[str, object]:
    return {
        "run": str(found.directory),
        "verdict": agreed.verdict,
        "steps": agreed.steps,
        "tolerance": agreed.tolerance,
        "largest": _replace_infinities(agreed.largest),
        "first": _replace_infinities(agreed.first),
        "weights": _replace_infinities(agreed.weights),
        "changed": {name: {"there": there, "here": here} for name, (there, here) in changed.items()},
        "directory": None if kept is None else str(kept),
    }


def _replace_infinities(part: "NamedTuple | None") -> dict[str, object] | None:
    """Replace infinities, since JSON has none."""
    if part is None:
        return None
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in part._asdict().items()
    }
