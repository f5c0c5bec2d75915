"""Record in DVC what was done: one process writes dvc.lock, after all workers have ended."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from gnflow.errors import EnvironmentProblem
from gnflow.study.design.design import Design
from gnflow.study.design.pipeline import FILE

LOCKED = "Unable to acquire lock"
PATIENCE = 300.0  # seconds to wait for another DVC process, such as that of a second `gnflow study work`


def record(design: Design, done: Sequence[str], *, whole: bool) -> str:
    """Write finished stages to dvc.lock; if they are the `whole` study, bring its comparison and report up to date.

    Returns a sentence for the user. Raises EnvironmentProblem with the words of DVC.
    """
    path = design.make_relative(design.folder / FILE)
    if not design.workspace.can_reproduce or find_spec("dvc") is None:
        return f"no DVC repository is here, so nothing is recorded; next: {design.format_repro(path)}"
    if done:
        # `repro` would run each stage again, only for its command to find that the run is finished.
        _call(design, "the runs are kept, but they could not be recorded", "gnflow.study.work.commit", path, *done)
    if not whole:
        return f"{len(done)} finished stages are in dvc.lock"
    # Without `--single-item` a study at the rates of another one would run that one too, if it has no runs here.
    _call(design, "the runs are in dvc.lock, but `dvc repro` failed", "dvc", "repro", "--single-item", path)
    return f"the study is done, and in dvc.lock: {design.make_relative(design.folder)}/report.html"


def _call(design: Design, failed: str, module: str, *arguments: str) -> None:
    """Call `python -m module`, again and again while DVC's lock is held. `failed` says what a failure means."""
    deadline = time.monotonic() + PATIENCE
    done = _run(design, module, arguments)
    while done.returncode != 0 and LOCKED in done.stderr and time.monotonic() < deadline:
        time.sleep(1)
        done = _run(design, module, arguments)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-2000:]
        again = design.format_repro(design.make_relative(design.folder / FILE))
        raise EnvironmentProblem(f"{failed}:\n{words}\nnext: {again}")


def _run(design: Design, module: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # The stages ask for gnflow on the PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=design.workspace.root,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
