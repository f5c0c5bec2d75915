"""`gnflow replay RUN STEP`: take one step of a run again, and name the first tensor that is not finite."""

import json as encoder
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from gnflow.compiler import toolchain
from gnflow.study import tables
from gnflow.study.find import find
from gnflow.workspace import Workspace

if TYPE_CHECKING:
    from gnflow.train.replay import Replay

COLUMNS = ("weight", "gradient", "update", "output")


def replay(run: Path, step: int, *, json: bool = False) -> int:
    """Print the size of every weight, gradient, update and output. Raises the errors of `gnflow.train.replay`."""
    found = find(run)
    workspace = Workspace.find_for_run(found.directory)
    toolchain.settle(workspace)
    from gnflow.train.display import Display
    from gnflow.train.replay import replay as take

    taken = take(found, step, workspace, Display(Console(stderr=json)).say)
    if json:
        print(encoder.dumps({"run": str(found.directory), **_make_json(taken)}, indent=2))
        return 0
    console = tables.make_console()
    for line in _describe_step(taken):
        console.print(line)
    table = tables.Table(None, ("", "|weight|", "|gradient|", "|update|", "output rms"), words=1)
    for layer in taken.layers:
        table.add_row(layer.name, *(_format_figure(getattr(layer, column)) for column in COLUMNS))
    console.print(table)
    return 0


def _describe_step(taken: "Replay") -> list[str]:
    here, recorded = taken.metrics.get("loss/train"), taken.recorded.get("loss/train")
    spread = f"{_format_figure(min(taken.losses))} to {_format_figure(max(taken.losses))}"
    lines = [
        f"step {taken.step}, eagerly on {taken.device}, {len(taken.losses)} micro-batches; "
        f"losses before the step {spread}",
        f"loss/train {_format_figure(here)}, recorded {_format_figure(recorded)}",
        *taken.events,
    ]
    match taken.first:
        case None:
            return [*lines, "every tensor is finite"]
        case (kind, name, None):
            return [*lines, f"the first tensor that is not finite is the {kind} of `{name}`"]
        case (kind, name, microbatch):
            what = "the loss" if kind == "loss" else f"the {kind} of `{name}`"
            return [*lines, f"the first tensor that is not finite is {what} in micro-batch {microbatch}"]


def _make_json(taken: "Replay") -> dict[str, object]:
    return {
        **taken._asdict(),
        "losses": [_replace_infinity(loss) for loss in taken.losses],
        "metrics": {name: _replace_infinity(value) for name, value in taken.metrics.items()},
        "layers": [
            {"name": layer.name, **{column: _replace_infinity(getattr(layer, column)) for column in COLUMNS}}
            for layer in taken.layers
        ],
        "first": None if taken.first is None else taken.first._asdict(),
    }


def _replace_infinity(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: infinities and NaN become words."""
    return value if value is None or math.isfinite(value) else str(value)


def _format_figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
