"""Real forks, of interpreters that have used threads or have not."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tiny

PARENT = """
import os, sys
import torch, polars
torch.set_num_threads(2)
{before}
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
import gnflow
from gnflow.errors import GnflowError
try:
    {inside}
    for fresh in range(2):
        gnflow.run(gnflow.load("tiny.yaml"))
    code = 0
except GnflowError as error:
    print(error, file=sys.stderr)
    code = error.exit_code
sys.stderr.flush()
os._exit(code)
"""
TORCH = "torch.ones(1000, 1000) @ torch.ones(1000, 1000)"
POLARS = "polars.DataFrame({'a': range(9999)}).lazy().group_by('a').len().collect()"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")


def forked(root: Path, before: str, inside: str = "pass") -> subprocess.CompletedProcess[str]:
    tiny.write_project(root)
    (root / "tiny.yaml").write_text(json.dumps(tiny.tiny(steps=1, start="scratch")))
    program = textwrap.dedent(PARENT).format(before=before, inside=inside)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("library", "before"), [("torch", TORCH), ("polars", POLARS)])
def test_a_run_in_a_fork_of_a_process_that_used_threads_is_refused_in_a_line(
    tmp_path: Path, library: str, before: str
) -> None:
    done = forked(tmp_path, before)
    assert done.returncode == 7, done.stderr
    assert f"forked from one in which {library} has used threads" in done.stderr
    assert "spawn" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_run_in_a_fork_of_a_process_that_used_none_is_carried_out(tmp_path: Path) -> None:
    done = forked(tmp_path, before="pass", inside=TORCH)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "tiny" / "summary.json").exists()
