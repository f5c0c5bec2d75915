"""`gnflow run`: plan, compile and train a spec, or resume its interrupted run."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gnflow.compiler import toolchain
from gnflow.crew import ALONE, Crew
from gnflow.spec.experiment import Experiment
from gnflow.spec.factory import check_needs
from gnflow.spec.load import Loaded, load
from gnflow.spec.tracking import TrackerKind
from gnflow.train import allocator
from gnflow.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console

    from gnflow.train.loop import Report, Watch
    from gnflow.train.run import Run

ROWS = (
    "status", "steps", "loss/train", "loss/held_out", "loss/held_out_average", "tokens/solve", "tokens/search",
    "tokens/total", "passes/serial", "flops/total", "time/seconds", "time/device_seconds", "time/compile",
    "target/step", "target/seconds",
)  # fmt: skip


def run(
    spec: Path,
    *,
    sets: Sequence[str] = (),
    run_dir: Path | None = None,
    fresh: bool = False,
    supersede: bool = False,
    extend: bool = False,
    devices: int = 1,
    restarts: int = 0,
) -> int:
    """Run a spec to its end and print its summary. Return the exit code.

    With several `devices` it starts a process for each. In a process that torchrun or such a call has started, it works
    on the run together with the others. Raises the errors of `gnflow.train.loop.run`.
    """
    loaded = load(spec, sets)
    toolchain.settle(loaded.workspace)
    allocator.keep_memory()

    def train(crew: Crew) -> int:
        return _train(loaded, crew, run_dir, fresh=fresh, supersede=supersede, extend=extend)

    if size := count_processes(os.environ):
        from gnflow.train.join import work

        return work(train, size, wants_gpu=loaded.experiment.training.device != "cpu")
    if devices == 1:
        return train(ALONE)
    from gnflow.train.launch import launch

    return launch(devices, sys.argv[1:], restarts, wants_gpu=loaded.experiment.training.device != "cpu")


def count_processes(environment: Mapping[str, str]) -> int:
    """Return the number of processes of the run that a launcher has started this one for; 0 without a launcher."""
    started = all(name in environment for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    return int(environment["WORLD_SIZE"]) if started else 0


def _train(loaded: Loaded, crew: Crew, run_dir: Path | None, *, fresh: bool, supersede: bool, extend: bool) -> int:
    # torch takes seconds to import, so a bad spec is refused before.
    if crew.leads:
        print(f"{loaded.experiment.name}: loading torch and planning the run", flush=True)
    from gnflow.train.display import Display
    from gnflow.train.loop import run as train

    display = Display()
    watches = [display.watch, *make_mirrors(loaded.experiment, loaded.workspace, display.say)] if crew.leads else []
    done = train(
        loaded.experiment,
        loaded.workspace,
        run_dir,
        fresh=fresh,
        supersede=supersede,
        extend=extend,
        watches=watches,
        report=display.say,
        crew=crew,
    )
    if crew.leads:
        print_summary(done, display.console)
    return 0


def make_mirrors(experiment: Experiment, workspace: Workspace, report: "Report") -> "list[Watch]":
    """Return the mirror that the spec asks for, if any. Raises EnvironmentProblem if its package is not installed."""
    tracking = experiment.tracking
    if not isinstance(tracking, TrackerKind):
        return []
    from gnflow.track.mirror import Mirror

    check_needs(tracking, workspace.root)
    return [lambda plan, directory: Mirror(directory, workspace, tracking, report=report)]


def print_summary(run: "Run", console: "Console") -> None:
    """Print the summary of a run as a table."""
    from rich.table import Table
    from rich.text import Text

    # Brackets in a path are not markup.
    table = Table(
        title=Text(str(run.directory), style="table.title"), title_justify="left", show_header=False, box=None
    )
    for name in ROWS:
        value = run.summary.get(name)
        if value is not None:
            table.add_row(name, _format_value(name, value))
    console.print(table)


def _format_value(name: str, value: object) -> str:
    match value:
        case int() | float() if name.endswith("seconds") or name == "time/compile":
            return f"{value:,.1f} s"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4f}"
        case _:
            return str(value)
