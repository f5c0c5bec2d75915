"""`gnflow list`: the runs of this project."""

import json as json_text
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gnflow.study.find import all_in
from gnflow.train.run import Run
from gnflow.workspace import Workspace

COLUMNS = ("steps", "loss/held_out", "tokens/total", "time/seconds")


def list_runs(*, json: bool) -> int:
    """Prints one line for each run under `runs/` of the project around the current directory."""
    rows = [_row(Run.load(path)) for path in all_in(Workspace.around(Path.cwd()).runs)]
    if json:
        print(json_text.dumps(rows, indent=2))
        return 0
    table = Table()
    for column in ("name", "optimizer", "status", *COLUMNS):
        table.add_column(column, justify="right" if column in COLUMNS else "left")
    for row in rows:
        table.add_row(
            *(
                "" if value is None else f"{value:,.6g}" if isinstance(value, float) else str(value)
                for value in row.values()
            )
        )
    Console().print(table)
    return 0


def _row(run: Run) -> dict[str, object]:
    fixed = {
        "name": run.directory.name,
        "optimizer": run.experiment.optimizer.kind,
        "status": run.summary.get("status", "unfinished"),
    }
    return {**fixed, **{column: run.summary.get(column) for column in COLUMNS}}
