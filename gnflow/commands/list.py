"""`gnflow list`: list the runs of this project."""

import json as json_text
import os
import time
from pathlib import Path
from typing import NamedTuple

from gnflow.errors import GnflowError
from gnflow.study import figures, state, tables
from gnflow.study.find import report_unread, walk
from gnflow.train.journal import JOURNAL, read
from gnflow.train.run import Run
from gnflow.workspace import Workspace

UNREADABLE = "unreadable"


class Row(NamedTuple):
    """One run; values that it has not recorded are None."""

    name: str
    """The path of the run under `runs/`."""
    kind: str
    status: str
    steps: int | None = None
    planned: int | None = None
    loss: float | None = None
    tokens: float | None = None
    seconds: float | None = None
    updated: float | None = None
    """Time of the last record, in Unix seconds."""


def list_runs(*, json: bool) -> int:
    """Print a line for each run under `runs/` of the current project, the latest first.

    Return 7 if one of them cannot be read.
    """
    runs = Workspace.find(Path.cwd()).runs
    found, unread = walk(runs)
    rows = [row for path in found if (row := _make_row(path, path.relative_to(runs).as_posix(), unread))]
    rows += [Row(os.path.relpath(path, runs), "?", UNREADABLE) for path in unread]
    rows.sort(key=lambda row: -(row.updated or 0))
    if json:
        print(json_text.dumps([row._asdict() for row in rows], indent=2))
    elif rows:
        _print(rows)
    else:
        print(f"There are no runs in {runs} yet.")
    return report_unread(unread)


def _make_row(directory: Path, name: str, unread: dict[Path, str]) -> Row | None:
    """Make the row of a run. If the run cannot be read, add it to `unread` and return None."""
    try:
        return _read_row(directory, name)
    except GnflowError as problem:
        unread[directory] = str(problem)
    except OSError as error:
        unread[directory] = f"it cannot be read ({error.strerror})"
    return None


def _read_row(directory: Path, name: str) -> Row:
    run = Run.load(directory)
    last = read(run.directory / JOURNAL).last
    planned = run.plan.get("steps")
    return Row(
        name,
        run.experiment.optimizer.kind,
        state.find_status(run),
        last.step,
        planned if isinstance(planned, int) else None,
        last.values.get("loss/held_out"),
        last.values.get("tokens/total"),
        last.values.get("time/seconds"),
        state.find_last_record(run),
    )


def _print(rows: list[Row]) -> None:
    columns = ("run", "optimizer", "status", "steps", "loss/held_out", "tokens", "time", "recorded")
    table = tables.Table(None, columns, words=3)
    for row in rows:
        steps = f"{row.steps}/{row.planned}" if row.planned else figures.format_count(row.steps)
        age = None if row.updated is None else max(0.0, time.time() - row.updated)
        table.add_row(
            row.name,
            row.kind,
            row.status,
            steps,
            figures.format_loss(row.loss),
            figures.format_count(row.tokens),
            figures.format_duration(row.seconds),
            figures.format_age(age),
        )
    tables.make_console().print(table)
