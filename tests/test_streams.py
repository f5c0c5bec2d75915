"""Runs and reading verbs whose output goes nowhere: closed pipes, full disks, descriptors that were never there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from equal_runs import assert_equal_but_for_clocks
from ruamel.yaml import YAML

from gnflow import streams
from gnflow.workspace import Workspace

GNFLOW = f"{sys.executable} -m gnflow"
NOWHERE = [
    "{} | head -n 1",
    "{} > /dev/full 2> /dev/full",
    "{} <&- >&- 2>&-",
    *(pytest.param(where, marks=pytest.mark.faults) for where in ("{} 2>&1 | head -n 0", "{} >&-", "{} 2>&-")),
]


def shell(line: str, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The exit code is that of the first command of a pipe."""
    script = f"{line}; exit ${{PIPESTATUS[0]}}"
    env = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", script], cwd=root, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tiny.write_project(tmp_path / "project")
    YAML().dump(tiny.tiny(), root / "tiny.yaml")
    return root


@pytest.mark.parametrize("where", NOWHERE)
def test_a_run_whose_output_goes_nowhere_is_the_same_run(where: str, project: Path, finished: Path) -> None:
    done = shell(where.format(f"{GNFLOW} run tiny.yaml"), project)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert_equal_but_for_clocks(project / "runs" / "tiny", finished / "runs" / "tiny")


def test_a_live_display_on_a_terminal_that_is_gone_ends_nothing(project: Path, finished: Path) -> None:
    far, near = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gnflow", "run", "tiny.yaml"],
        cwd=project, env={**os.environ, "TERM": "xterm-256color"}, stdout=near, stderr=near, start_new_session=True,
    )  # fmt: skip
    os.close(near)
    os.read(far, 1)
    os.close(far)
    assert process.wait(120) == 0
    assert_equal_but_for_clocks(project / "runs" / "tiny", finished / "runs" / "tiny")


@pytest.mark.parametrize("where", NOWHERE[:2])
def test_data_are_prepared_though_nobody_hears_of_it(where: str, project: Path) -> None:
    done = shell(where.format(f"{GNFLOW} prepare tiny.yaml"), project)
    assert (done.returncode, done.stderr) == (0, "")
    [shards] = Workspace(project).data.iterdir()
    assert json.loads((shards / "manifest.json").read_text())["splits"]


def test_no_file_of_a_run_takes_the_place_of_a_closed_stream(project: Path) -> None:
    code = (
        "import sys, os; sys.argv = ['gnflow', '--version']\n"
        "from gnflow.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "opened = os.open('opened', os.O_CREAT | os.O_WRONLY)\nos.write(2, b'a message')\nos._exit(opened)"
    )
    done = shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', project)
    assert done.returncode > 2
    assert (project / "opened").read_bytes() == b""


@pytest.mark.parametrize("verb", ["list", "schema"])
def test_a_reader_that_leaves_ends_a_reading_verb_in_silence(verb: str, project: Path) -> None:
    done = shell(f"{GNFLOW} {verb} | true", project)
    assert done.returncode in (0, 1)
    assert not done.stderr


@pytest.mark.parametrize("verb", ["list", "schema", "plan tiny.yaml"])
def test_output_that_cannot_be_written_is_one_line_and_exit_8(verb: str, project: Path) -> None:
    done = shell(f"{GNFLOW} {verb} > /dev/full", project)
    assert done.returncode == 8
    assert done.stderr == "cannot write to standard output: No space left on device\n"


def test_a_reading_verb_may_be_asked_without_any_output(project: Path) -> None:
    assert shell(f"{GNFLOW} plan tiny.yaml >&-", project).returncode == 0


def test_a_reader_that_is_slow_gets_everything(project: Path) -> None:
    shown = shell(f"{GNFLOW} schema", project).stdout
    made = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK); os.execvp('bash', ['bash', '-c', '{}'])"
    slow = shell(f'{sys.executable} -c "{made.format(f"{GNFLOW} schema")}" | (sleep 1; cat)', project)
    assert (slow.returncode, slow.stdout) == (0, shown)


def test_a_link_that_leads_back_to_itself_is_one_line(tmp_path: Path) -> None:
    link = tmp_path / "loop"
    link.symlink_to("loop")
    with pytest.raises(RuntimeError) as caught:
        link.resolve()
    assert streams.explain(caught.value) == (7, f"{link}: this symbolic link leads back to itself")
