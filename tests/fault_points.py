"""Runs a spec that is killed at points of its write paths, each time in a project of its own, then to its end.

    python fault_points.py ROOT POINT:COUNT ...

Without a kill the run is in ROOT/untouched; that which is killed at a point in ROOT/POINT:COUNT. With `rotted` before
the points all of them, the untouched one too, find the last checkpoint of an earlier session rotted, and replace it.
Prints the points that were never passed.
"""

import signal
import sys
from pathlib import Path

import tiny
from forks import begun, ended
from rot import flip
from ruamel.yaml import YAML

from gnflow import faults
from gnflow.commands.run import run

STEPS = 5


def project(root: Path) -> Path:
    """A project with the spec that all runs here follow; returns the spec."""
    spec = tiny.write_project(root) / "tiny.yaml"
    # A temporary checkpoint after every step, so that there are some to remove.
    YAML().dump(tiny.tiny(steps=STEPS, checkpoint_every=2, temporary_checkpoint_minutes=1e-6), spec)
    return spec


def forked(spec: Path, fault: str = "") -> int:
    """Exit code of a run in a process of its own."""

    def work() -> int:
        faults.arm(fault)
        return run(spec)

    return ended(begun(work))


def rotted(root: Path) -> Path:
    """The same, with a run that was killed at its end and lost the checkpoint of its last step to rot."""
    spec = project(root)
    assert forked(spec, "summary.before_write") == -signal.SIGKILL
    flip(spec.parent / "runs" / "tiny" / "checkpoints" / f"step_{STEPS:08d}" / "params.safetensors", 200)
    return spec


def main(root: Path, *faulty: str) -> None:
    import gnflow.train.display
    import gnflow.train.loop  # noqa: F401

    begun = rotted if faulty[0] == "rotted" else project
    assert forked(begun(root / "untouched")) == 0
    for fault in faulty[begun is rotted :]:
        spec = begun(root / fault)
        code = forked(spec, fault)
        if code == 0:
            print(fault)
            continue
        assert code == -signal.SIGKILL, (fault, code)
        assert forked(spec) == 0, fault


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
