"""Kills a small training run at each of its file operations in turn, goes on, and compares with a run left alone.

    python crash_matrix.py DIRECTORY

Every attempt is a fork that counts Python's audit events (open, rename, remove, truncate, mkdir, ...) and sends itself
SIGKILL just before the n-th that concerns its run directory. Prints the number of operations tried.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import polars
from quadratic import computed, quadratic_plan, trained

from gnflow.train import checkpoint, results
from gnflow.train.journal import read

PLAN = quadratic_plan(steps=5, checkpoint_every=2)


def whole_run(directory: Path) -> None:
    """As the loop does it, up to the last output."""
    checkpoint.sweep(directory / "checkpoints")
    state = trained(directory, PLAN)
    steps = read(directory / "journal.jsonl").steps
    results.write_all(directory, PLAN, steps, checkpoint.path_of(directory / "checkpoints", state.step))


def forked(directory: Path, kill_at: int | None = None) -> int:
    """Exit code of a process that does the whole run, or is killed at one of its file operations."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        concerned = event == "os.truncate" or any(str(directory) in str(argument) for argument in arguments)
        if concerned and event.startswith(("open", "os.", "shutil.")):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        if kill_at is not None:
            sys.addaudithook(hook)
        whole_run(directory)
        status = 0
    finally:
        os._exit(status)


def outcome(directory: Path) -> dict[str, object]:
    """All that must be the same, whatever happened on the way."""
    files = {
        str(path.relative_to(directory)): path.read_bytes()
        for name in ("checkpoints", "model")
        for path in (directory / name).rglob("*")
        if path.is_file()
    }
    table = polars.read_parquet(directory / "metrics.parquet").select(polars.exclude("^time/.*$"))
    names = sorted(path.name for path in directory.iterdir())
    return {"names": names, "journal": computed(directory), "table": table.to_dicts(), "files": files}


def main(root: Path) -> None:
    for name in ("expected", "run"):
        (root / name).mkdir()
        (root / name / "experiment.yaml").write_text("name: quadratic\n")
    assert forked(root / "expected") == 0
    expected = outcome(root / "expected")
    kill_at = 0
    while True:
        kill_at += 1
        directory = Path(shutil.copytree(root / "run", root / str(kill_at)))
        code = forked(directory, kill_at)
        if code == 0:
            break
        assert code == -signal.SIGKILL, (kill_at, code)
        assert forked(directory) == 0, kill_at
        found = outcome(directory)
        for part, value in expected.items():
            assert found[part] == value, (kill_at, part)
        shutil.rmtree(directory)
    print(kill_at - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
