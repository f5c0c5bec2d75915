import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpora import prose, text

from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.errors import DataError, DiskProblem
from gnflow.spec.data import Text
from gnflow.workspace import Workspace

Written = Callable[..., Path]
SOURCE = {"kind": "files", "paths": ["a.txt"]}


def section(**changes: object) -> Text:
    return text(**{"source": SOURCE, "tokenizer": "bytes", "context": 8, **changes})


def leftovers(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in workspace.data.iterdir() if path.name.startswith("."))


def test_shards_are_made_once_and_reused_afterwards(workspace: Workspace, written: Written) -> None:
    written("a.txt", prose(500))
    lines: list[str] = []
    first = prepare(section(), workspace, lines.append)
    assert lines == [f"preparing {first.directory}", "writing train.npy", "writing held_out.npy"]
    times = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    lines.clear()
    second = prepare(section(), workspace, lines.append)
    assert lines == []
    assert second.digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in second.directory.iterdir()} == times
    assert leftovers(workspace) == []


def test_the_length_of_a_row_does_not_make_another_corpus(workspace: Workspace, written: Written) -> None:
    written("a.txt", prose(500))
    assert prepare(section(), workspace).directory == prepare(section(context=30), workspace).directory


def test_source_content_options_and_tokenizer_each_make_another_corpus(workspace: Workspace, written: Written) -> None:
    written("a.txt", prose(500))
    trained = {"kind": "bpe", "vocabulary": 300}
    file = prepare(section(tokenizer=trained), workspace).directory / "tokenizer.json"
    written("tokenizer/tokenizer.json", file.read_text())
    ready = {"kind": "huggingface", "path": "tokenizer", "vocabulary": 512}
    sections = [
        section(),
        section(source={**SOURCE, "held_out_fraction": 0.1}),
        section(tokenizer=trained),
        section(tokenizer=ready),
        section(tokenizer={**ready, "vocabulary": 600}),
    ]
    found = [prepare(each, workspace).directory for each in sections]
    written("tokenizer/tokenizer_config.json", json.dumps({"eos_token": "a"}))
    found.append(prepare(section(tokenizer=ready), workspace).directory)
    written("a.txt", prose(500, seed=1))
    found.append(prepare(section(), workspace).directory)
    assert len(set(found)) == len(found)
    assert [directory.name.rpartition("-")[0] for directory in found[:4]] == [
        "files-bytes-257",
        "files-bytes-257",
        "files-bpe-300",
        "files-huggingface-512",
    ]


def test_a_default_that_is_written_out_is_the_same_corpus(shakespeare: tuple[Dataset, Workspace]) -> None:
    dataset, workspace = shakespeare
    assert prepare(text(tokenizer={"kind": "bpe", "vocabulary": 512}), workspace).directory == dataset.directory


def test_the_same_corpus_has_the_same_name_and_digest_in_another_project(tmp_path: Path, written: Written) -> None:
    found = []
    for project in ("one", "two"):
        written(f"{project}/a.txt", prose(500))
        found.append(prepare(section(), Workspace(tmp_path / project)))
    assert found[0].directory.name == found[1].directory.name
    assert found[0].digest == found[1].digest


def test_large_vocabularies_take_four_bytes_a_token(workspace: Workspace, written: Written) -> None:
    written("a.txt", prose(500))
    file = prepare(section(tokenizer={"kind": "bpe", "vocabulary": 300}), workspace).directory / "tokenizer.json"
    for vocabulary, dtype in ((1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)):
        ready = {"kind": "huggingface", "path": str(file.relative_to(workspace.root)), "vocabulary": vocabulary}
        assert prepare(section(tokenizer=ready), workspace).train.dtype == dtype


def test_a_row_that_does_not_fit_is_refused_with_the_counts(workspace: Workspace, written: Written) -> None:
    written("a.txt", "x" * 999)
    expected = r"held-out text has 51 tokens, and one row takes data.context \+ 1 = 52 \(training: 950, held-out: 51\)"
    assert len(prepare(section(context=50), workspace).held_out) == 51
    with pytest.raises(DataError, match=expected):
        prepare(section(context=51), workspace)


def test_a_disk_that_cannot_be_written_to_is_named(workspace: Workspace, written: Written) -> None:
    written("a.txt", prose(500))
    written("data", "a file where the directory should be")
    with pytest.raises(DiskProblem, match=r"files-bytes-257-.* cannot be written: File exists") as caught:
        prepare(section(), workspace)
    assert caught.value.exit_code == 8


def test_a_full_disk_leaves_nothing_behind(workspace: Workspace, written: Written) -> None:
    written("a.txt", prose(200_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(DiskProblem, match=r"cannot be written: File too large"):
            prepare(section(), workspace)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(workspace.data.iterdir()) == []
    prepare(section(), workspace)


AT_ONCE = """
import sys, time
from pathlib import Path
from gnflow.data.prepare import prepare
from gnflow.spec.data import Text
from gnflow.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
section = Text.model_validate_json(sys.argv[2])
(workspace.root / sys.argv[3]).touch()
while not (workspace.root / "go").exists():
    time.sleep(0.001)
def report(line):
    print(line, flush=True)
    if line.startswith("writing"):
        time.sleep(0.3)
print(prepare(section, workspace, report).digest)
"""


def test_two_processes_at_once_prepare_once(workspace: Workspace, written: Written) -> None:
    written("a.txt", prose(2000))
    arguments = [sys.executable, "-c", AT_ONCE, str(workspace.root), section().model_dump_json()]
    processes = [
        subprocess.Popen([*arguments, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    while not all((workspace.root / name).exists() for name in ("one", "two")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (workspace.root / "go").touch()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in outputs] == ["", ""]
    (one, two) = (output.splitlines() for output, _ in outputs)
    assert one[-1] == two[-1] == prepare(section(), workspace).digest
    assert sum("writing train.npy" in output for output, _ in outputs) == 1
    assert sum("waiting for another process" in output for output, _ in outputs) == 1
    assert leftovers(workspace) == []


# Each child dies at its n-th touch of a file or directory under data/, until one gets through alive.
KILLED = """
import os, signal, sys
from pathlib import Path
from gnflow.data.prepare import prepare
from gnflow.errors import GnflowError
from gnflow.spec.data import Text
from gnflow.workspace import Workspace

workspace = Workspace(Path(sys.argv[1]))
section = Text.model_validate_json(sys.argv[2])
left = None

def hook(event, arguments):
    global left
    touches = event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
    if left is not None and touches and str(arguments[0]).startswith(str(workspace.data)):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
for touches in range(100):
    child = os.fork()
    if not child:
        left = touches
        try:
            prepare(section, workspace)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    names = sorted(path.name for path in workspace.data.iterdir()) if workspace.data.exists() else []
    print(touches, os.waitstatus_to_exitcode(status), *names, flush=True)
    if status == 0:
        break
    for name in names:
        assert name.startswith(".") or (workspace.data / name / "manifest.json").exists(), name
"""


def test_a_process_killed_at_any_moment_leaves_nothing_half_written(workspace: Workspace, written: Written) -> None:
    written("a.txt", prose(2000))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(workspace.root), section().model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {row[1] for row in rows[:-1]} == {"-9"}
    assert rows[-1][1] == "0"
    assert sum(any(name.endswith(".partial") for name in row) for row in rows) >= 5
    assert not [name for name in leftovers(workspace) if name.endswith(".partial")]
    reference = Workspace(workspace.root / "reference")
    written("reference/a.txt", prose(2000))
    assert prepare(section(), workspace).digest == prepare(section(), reference).digest
