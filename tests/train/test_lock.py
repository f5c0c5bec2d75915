import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gnflow.errors import EnvironmentProblem
from gnflow.train import lock

HOLD = """
import sys, time
from pathlib import Path
from gnflow.train import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_is_there_until_the_first_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as process:
        who = rf"in use by another process \(pid {process.pid} on "
        with pytest.raises(EnvironmentProblem, match=who), lock.hold(tmp_path / "run"):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with lock.hold(tmp_path / "run"):
            assert f"pid {os.getpid()} " in (tmp_path / "run" / lock.NAME).read_text()


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with lock.hold(tmp_path), pytest.raises(EnvironmentProblem), lock.hold(tmp_path):
            pass
    with pytest.raises(ZeroDivisionError), lock.hold(tmp_path):
        _ = 1 / 0
    with lock.hold(tmp_path):
        pass


def test_a_process_started_inside_the_block_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with lock.hold(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with lock.hold(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
