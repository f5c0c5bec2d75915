"""A long run that looks at itself: memory, open files and threads, at so many moments.

    python soak.py DIRECTORY OPTIMIZER compiled|eager STEPS

Prints a JSON list of [step, bytes of resident memory, open files, threads], each after a collection of garbage and
after the allocator has given back what it holds for nobody.
"""

import ctypes
import gc
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tiny

from gnflow.compiler.plan import Plan
from gnflow.spec.experiment import Experiment
from gnflow.train.journal import Record, Step
from gnflow.train.loop import run
from gnflow.workspace import Workspace

MOMENTS = 20
PAGE = 4096


class Watcher:
    """Observer of the run."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.seen: list[tuple[int, int, int, int]] = []

    def hear(self, record: Record) -> None:
        if isinstance(record, Step) and record.step % self.period == 0:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
            self.seen.append(
                (record.step, resident, len(list(Path("/proc/self/fd").iterdir())), threading.active_count())
            )


def main(root: Path, optimizer: str, mode: str, steps: int) -> None:
    tree = tiny.tiny(optimizer, steps=steps, checkpoint_every=steps // MOMENTS, temporary_checkpoint_minutes=0.02)
    tree["compile"] = {"mode": "default" if mode == "compiled" else "off"}
    watcher = Watcher(steps // MOMENTS)

    @contextmanager
    def watching(plan: Plan, directory: Path) -> Iterator[Watcher]:
        yield watcher

    run(Experiment.model_validate(tree), Workspace(tiny.write_project(root)), watches=[watching])
    print(json.dumps(watcher.seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
