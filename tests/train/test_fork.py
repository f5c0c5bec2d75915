"""Real forks, of interpreters that have used threads or have not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

PARENT = """
import json, os, sys
import torch, polars
import gnflow, gnflow.train.loop
from gnflow.errors import GnflowError
torch.set_num_threads(2)

def fork(work):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(work())

def run(inside):
    try:
        exec(inside)
        for fresh in range(2):
            gnflow.run(gnflow.load("tiny.yaml"))
    except GnflowError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0

def use_and_fork(before, inside):
    exec(before)
    return fork(lambda: run(inside))

for before, inside in json.loads(sys.argv[1]):
    print(fork(lambda: use_and_fork(before, inside)), flush=True)
"""
TORCH = "torch.ones(1000, 1000) @ torch.ones(1000, 1000)"
POLARS = "polars.DataFrame({'a': range(9999)}).lazy().group_by('a').len().collect()"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")


def test_a_run_in_a_fork_is_refused_in_a_line_where_threads_were_used_before_and_carried_out_elsewhere(
    tmp_path: Path,
) -> None:
    """Each case is a fork, which uses threads or does not, and forks again."""
    tiny.write_project(tmp_path)
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny.tiny(steps=1, start="scratch")))
    cases = [(TORCH, "pass"), (POLARS, "pass"), ("pass", TORCH)]
    done = subprocess.run(
        [sys.executable, "-c", PARENT, json.dumps(cases)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.splitlines() if line.isdecimal()] == [7, 7, 0], done.stderr
    for library, line in zip(("torch", "polars"), done.stderr.splitlines(), strict=True):
        assert f"forked from one in which {library} has used threads" in line
        assert "spawn" in line
    assert (tmp_path / "runs" / "tiny" / "summary.json").exists()
