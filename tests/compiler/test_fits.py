"""What does not fit is said before a byte is allocated, with what would; running out all the same is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from gnflow.compiler.fits import Room, compare_with_memory, find_room, format_gigabytes, require_fit
from gnflow.compiler.plan import Plan, plan
from gnflow.errors import EnvironmentProblem, is_out_of_memory
from gnflow.spec.experiment import Experiment
from gnflow.train.loop import run
from gnflow.workspace import Workspace


def planned(rows: int = 64, **model: object) -> Plan:
    tree = tiny.tiny(rows=rows)
    return plan(Experiment.model_validate({**tree, "model": {**tree["model"], **model}}))  # type: ignore[dict-item]


def room(total: float, free: float | None = None) -> Room:
    return Room("this machine", int(total), int(total if free is None else free))


def test_a_plan_fits_may_not_or_does_not() -> None:
    one = planned()
    needed = sum(one.memory.values())
    verdicts = {}
    for name, memory in {
        "ample": room(3 * needed), "busy": room(3 * needed, needed / 2), "small": room(needed / 3),
    }.items():  # fmt: skip
        found = compare_with_memory(one, memory)
        assert found is not None
        verdicts[name] = found.verdict
    assert verdicts == {"ample": "fits", "busy": "may not fit", "small": "does not fit"}


def test_the_rows_that_it_advises_fit() -> None:
    one = planned(rows=64)
    memory = room(sum(one.memory.values()) / 3)
    found = compare_with_memory(one, memory)
    assert found is not None
    rows = int(str(found).partition("`training.rows: ")[2].partition("`")[0])
    assert 1 <= rows < 64
    fewer = compare_with_memory(planned(rows=rows), memory)
    assert fewer is not None
    assert fewer.verdict == "fits"
    more = compare_with_memory(planned(rows=2 * rows + 1), memory)
    assert more is not None
    assert more.verdict != "fits"


def test_a_model_that_is_too_large_itself_is_told_the_size_that_is_not() -> None:
    one = planned(rows=1, width=64)
    found = compare_with_memory(one, room(one.memory["parameters"]))
    assert found is not None
    assert found.verdict == "does not fit"
    assert "Choose a model of at most about" in str(found)
    assert "fewer `model.layers`" in str(found)


def test_the_room_is_that_of_this_machine() -> None:
    found = find_room("cpu")
    assert found is not None
    assert 0 < found.free <= found.total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert format_gigabytes(1.26e9) == "1.3 GB"


def test_a_run_that_cannot_fit_is_refused_before_it_makes_anything(tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path)
    huge = tiny.experiment(rows=10**9)
    with pytest.raises(EnvironmentProblem, match="does not fit") as raised:
        run(huge, Workspace(root))
    assert raised.value.exit_code == 7
    assert "`training.rows: " in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert sorted(path.name for path in root.iterdir()) == ["dvc.yaml", "text.txt"]
    with pytest.raises(EnvironmentProblem):
        require_fit(plan(huge))


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from gnflow.cli import main
import gnflow.train.loop, gnflow.train.display
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 400_000_000, resource.RLIM_INFINITY))
sys.argv = ["gnflow", "run", "large.yaml"]
main()
"""


def test_running_out_of_memory_all_the_same_is_one_line_and_exit_7(tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path)
    (root / "large.yaml").write_text(
        "name: large\nmodel: {layers: 4, width: 2048, heads: 16}\n"
        "data: {source: {kind: files, paths: [text.txt]}, tokenizer: bytes, context: 16}\n"
        "optimizer: adamw\ntraining: {steps: 1, rows: 1, device: cpu, start: scratch}\n"
        "compile: {mode: 'off'}\ntracking: none\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("large: out of memory. The plan needs up to ")
    assert "Traceback" not in done.stderr


def test_what_ran_out_of_memory_is_told_from_other_errors() -> None:
    import numpy as np
    import torch

    for exhausted in (lambda: torch.empty(2**50), lambda: np.empty(2**50), lambda: bytearray(2**60)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            exhausted()
        assert is_out_of_memory(raised.value)
        assert is_out_of_memory(_wrapped(raised.value))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(OSError("Cannot allocate memory"))


def _wrapped(error: BaseException) -> BaseException:
    try:
        raise RuntimeError("a region failed") from error
    except RuntimeError as outer:
        return outer
