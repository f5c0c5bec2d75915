"""A long run holds no more memory, files or threads at its end than after its first fifth."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "soak.py"
# The journal keeps what it has written, to compare what is computed again: about 1.5 kB a step.
BYTES_A_STEP, NOISE = 2_500, 1 << 20


def assert_flat(root: Path, optimizer: str, mode: str, steps: int) -> None:
    done = subprocess.run(
        [sys.executable, SOAK, root, optimizer, mode, str(steps)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    settled = seen[len(seen) // 5 :]
    (first, memory, files, threads), (last, memory_then, files_then, threads_then) = settled[0], settled[-1]
    assert last == steps
    assert (files_then, threads_then) == (files, threads)
    assert memory_then - memory < BYTES_A_STEP * (last - first) + NOISE


@pytest.mark.faults
def test_a_run_of_some_hundred_steps_holds_no_more_at_its_end(tmp_path: Path) -> None:
    assert_flat(tmp_path, "adamw", "eager", 200)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("optimizer", "mode"), [("adamw", "eager"), ("muon", "compiled"), ("gauss_newton", "compiled")]
)
def test_a_run_of_two_thousand_steps_holds_no_more_at_its_end(optimizer: str, mode: str, tmp_path: Path) -> None:
    assert_flat(tmp_path, optimizer, mode, 2000)
