"""`gnflow show RUN`: show the spec, plan, state and figures of one run."""

import json as json_text
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from gnflow.study import figures, state, tables
from gnflow.study.find import find
from gnflow.study.scores import METRIC, score_run, select_numbers
from gnflow.track.description import flatten, read_json
from gnflow.train.journal import JOURNAL, Reading, read
from gnflow.train.origin import KEY
from gnflow.train.run import Run

SECTIONS = ("model", "data", "optimizer", "training")
LAST_EVENTS = 5


class RunState(NamedTuple):
    """All parts of a run that are shown."""

    run: Run
    status: str
    updated: float | None
    """Time of the last record, in Unix seconds."""
    journal: Reading
    digests: Mapping[str, object]
    """SHA-256 of the spec, of the data, and of the weights that the run started from."""
    sessions: list[dict[str, object]]
    checkpoints: list[str]

    @property
    def losses(self) -> list[float]:
        """The held-out losses in the order of steps."""
        return [step.values[METRIC] for step in self.journal.steps.values() if METRIC in step.values]

    @property
    def last(self) -> dict[str, float]:
        """The last value of every column that was recorded."""
        last = self.journal.last
        return {"step": last.step, **last.values} if self.journal.steps else {}


def show(run: Path, *, json: bool) -> int:
    """Print where a run comes from, its status, and its results."""
    found = _read_state(find(run))
    if json:
        print(json_text.dumps(_make_json(found), indent=2))
        return 0
    console = tables.make_console()
    for heading, lines in _list_blocks(found):
        for line in lines:
            console.print(f"{heading:<14} {line}")
            heading = ""
    return 0


def _read_state(run: Run) -> RunState:
    provenance = read_json(run.directory / "provenance.json")
    sessions, digests = provenance.get("sessions"), provenance.get("digests")
    return RunState(
        run,
        state.find_status(run),
        state.find_last_record(run),
        read(run.directory / JOURNAL),
        digests if isinstance(digests, dict) else {},
        [session for session in sessions if isinstance(session, dict)] if isinstance(sessions, list) else [],
        [path.name for path in sorted((run.directory / "checkpoints").glob("step_*"))],
    )


def _make_json(shown: RunState) -> dict[str, object]:
    return {
        "directory": str(shown.run.directory),
        "status": shown.status,
        "updated": shown.updated,
        "experiment": shown.run.experiment.model_dump(mode="json"),
        "plan": shown.run.plan,
        "summary": shown.run.summary,
        "last": shown.last,
        "losses": shown.losses,
        "events": [asdict(event) for event in shown.journal.events],
        "digests": dict(shown.digests),
        "sessions": shown.sessions,
        "checkpoints": shown.checkpoints,
    }


def _list_blocks(shown: RunState) -> Iterator[tuple[str, list[str]]]:
    """Return headings with their lines. A heading without lines is left out."""
    run, last = shown.run, shown.last
    ago = "" if shown.updated is None else f", last recorded {figures.format_age(time.time() - shown.updated)}"
    yield "run", [f"{run.directory.resolve().name}: {shown.status}{ago}", str(run.directory)]
    for section in SECTIONS:
        yield section, [_describe_section(run, section)]
    yield "plan", _describe_plan(run)
    yield "starts from", [f"weights with SHA-256 {shown.digests[KEY]}"] if KEY in shown.digests else []
    if losses := shown.losses:
        first, last_loss, best = map(figures.format_loss, (losses[0], losses[-1], min(losses)))
        course = f"{first} -> {last_loss}, best {best}"
        yield METRIC, [course, figures.draw_sparkline(losses)]
    yield "target", _describe_target(run)
    yield "so far", [f"{name} {_format_figure(name, value)}" for name, value in last.items()]
    yield "sessions", [_describe_session(session) for session in shown.sessions]
    events = [f"step {event.step}: {event.name}: {event.message}" for event in shown.journal.events]
    yield "events", events[-LAST_EVENTS:]
    yield "checkpoints", [", ".join(shown.checkpoints) or "none"]


def _describe_section(run: Run, section: str) -> str:
    """List the keys of a section of the spec that differ from the defaults."""
    part: BaseModel = getattr(run.experiment, section)
    kind = getattr(part, "kind", None)
    said = [f"{key} {value}" for key, value in flatten(part.model_dump(mode="json", exclude_defaults=True))]
    return ", ".join(([kind] if kind else []) + [item for item in said if not item.startswith("kind ")])


def _describe_plan(run: Run) -> list[str]:
    whole, step = select_numbers(run.plan), select_numbers(run.plan.get("step"))
    if not step:
        return []
    tokens, searched = (figures.format_count(step.get(column)) for column in ("tokens/solve", "tokens/search"))
    passes, flops = (figures.format_count(step.get(column)) for column in ("passes/serial", "flops"))
    parameters = figures.format_count(whole.get("parameters"))
    return [
        f"{whole.get('steps', 0):.0f} steps on {run.plan.get('device')}, {parameters} parameters",
        f"a step: {tokens} tokens, {searched} more for the search, {passes} serial passes, {flops} FLOPs",
    ]


def _describe_target(run: Run) -> list[str]:
    target = run.experiment.training.target
    if target is None:
        return []
    found = score_run(run, run.directory.name, target.at_most).needed
    if found is None:
        return [f"{target.at_most:g} not reached"]
    tokens, seconds = figures.format_count(found["tokens"]), figures.format_duration(found["seconds"])
    return [f"{target.at_most:g} reached at step {found['steps']:.0f}, after {tokens} tokens and {seconds}"]


def _format_figure(name: str, value: float) -> str:
    if name.startswith("time/"):
        return figures.format_duration(max(value, 0.0))  # `time/others` may be slightly below 0
    if name.startswith("loss/"):
        return figures.format_loss(value)
    return figures.format_count(value) if name.startswith(("tokens/", "flops/", "passes/")) else f"{value:.6g}"


def _describe_session(session: Mapping[str, object]) -> str:
    started = session.get("started")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if isinstance(started, int | float) else "?"
    resumed = session.get("resumed_from")
    how = "from the start" if resumed is None else f"from step {resumed}"
    return f"{when} {how} on {session.get('device', '?')} of {session.get('host', '?')}: {session.get('command', '')}"
