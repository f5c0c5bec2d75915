"""`gnflow study jobs` and `gnflow study work`: list what is ready in a study, and run it, several runs at a time."""

import json as json_text
import os
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console

from gnflow.errors import EnvironmentProblem
from gnflow.study.design import pipeline
from gnflow.study.design.design import Design
from gnflow.study.design.load import load
from gnflow.study.figures import join_words
from gnflow.study.work.board import Board, Entry, describe
from gnflow.study.work.executor import Executor, Processes


def list_jobs(folder: Path, *, json: bool) -> int:
    """Print the commands that are ready, one a line, and what the others wait for in comments; or all of it as JSON."""
    from gnflow.study.design.tasks import Task, list_states, list_tasks, locate

    design = load(folder)
    tasks = list_tasks(design)
    states = list_states(design, tasks)
    by_state = {state: [task for task in tasks if states[task.name] == state] for state in sorted({*states.values()})}

    def missing(task: Task) -> list[str]:
        return [name for name in task.after if states[name] != "done"]

    if json:
        tree = {
            "study": design.study.name,
            "root": os.fspath(design.workspace.root),
            "jobs": [
                {
                    "name": task.name, "state": states[task.name], "command": task.command, "waits_for": missing(task),
                    "run": design.make_relative(directory) if (directory := locate(design, task)) else None,
                }
                for task in tasks if states[task.name] != "done"
            ],
            "done": len(by_state.get("done", ())),
        }  # fmt: skip
        print(json_text.dumps(tree, indent=2))
        return 0
    for task in by_state.get("ready", ()):
        print(task.command)
    for names, waiting in groupby(by_state.get("waiting", ()), missing):
        those = [task.name for task in waiting]
        print(f"# {join_words(those)} wait{'s' * (len(those) == 1)} for {join_words(names)}")
    print(f"# {', '.join(f'{len(found)} {state}' for state, found in by_state.items())}")
    return 0


def work(folder: Path, *, on: str, slots: int | None, retries: int) -> int:
    """Run everything that a study still needs, and record it in DVC. Return the exit code.

    Raises SpecError, EnvironmentProblem, Interrupted or Preempted.
    """
    design = load(folder)
    pipeline.write(design)
    # torch takes seconds to import, so a bad study is refused before.
    from gnflow.study.work import ledger
    from gnflow.study.work.display import Display
    from gnflow.study.work.work import work as run_tasks

    display = Display(Console())
    board = Board(design, retries, display.say)
    board.look()
    if not board.is_over:
        executor, environment = _make_executor(on, slots)
        display.say(
            f"{design.study.name}: {board.count('done')} of {len(board.entries)} done; "
            f"{executor.slots} at a time on {on}"
        )
        stopped = run_tasks(design, executor, board, environment, display.show(board), display.say)
        if stopped is not None:
            raise stopped
    failed = board.select("failed")
    for line in _explain(design, failed):
        print(line, file=sys.stderr)
    done = [entry.task.name for entry in board.select("done")]
    display.say(ledger.record(design, done, whole=len(done) == len(board.entries)))
    return _find_code(failed)


def _make_executor(on: str, slots: int | None) -> tuple[Executor, dict[str, str]]:
    """Return where commands run, and what is added to their environment."""
    import torch

    gpus = _list_gpus(torch.cuda.device_count())
    here = slots or len(gpus) or len(os.sched_getaffinity(0))
    executor: Executor
    if on == "ray":
        from gnflow.study.work.on_ray import OnRay

        executor = OnRay(slots if "RAY_ADDRESS" in os.environ else here, len(gpus))
    else:
        executor = Processes(here, gpus)
    # As many threads as each slot has cores: more would wait for one another, and another number gives other bits.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // executor.slots))
    return executor, {"OMP_NUM_THREADS": threads}


def _list_gpus(count: int) -> Sequence[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def _explain(design: Design, failed: Sequence[Entry]) -> list[str]:
    """Return the words of the tasks that failed, those of the same words together."""
    lines = []
    for (code, words), entries in groupby(failed, lambda entry: (entry.code, entry.words)):
        lines.append(f"{join_words([entry.task.name for entry in entries])}: {describe(code)}\n{words}".strip())
    if failed:
        lines.append(
            f"what depends on {'it' if len(failed) == 1 else 'them'} was not started; the same command goes on"
        )
    return lines


def _find_code(failed: Sequence[Entry]) -> int:
    """Return the exit code of the first task that failed; that of a killed one says that its run can be resumed."""
    codes = [entry.code for entry in failed]
    return next((code if code > 0 else EnvironmentProblem.exit_code for code in codes), 0)
