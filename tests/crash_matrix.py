"""Kills a small training run at each of its file operations in turn, goes on, and compares with a run left alone.

    python crash_matrix.py DIRECTORY [POLICY]

With a policy for steps gone wrong, one of its steps is poisoned.

Every attempt is a fork that counts Python's audit events (open, rename, remove, truncate, mkdir, ...) and sends itself
SIGKILL just before the n-th that concerns its run directory. Prints the number of operations tried.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import polars
from quadratic import computed, poisoned, quadratic_plan, tokens, trained

from gnflow.train import checkpoint, results
from gnflow.train.journal import read

POLICY = sys.argv[2] if len(sys.argv) > 2 else "raise"
PLAN = quadratic_plan(steps=3, checkpoint_every=2, on_nonfinite=POLICY)
TRAIN = tokens() if POLICY == "raise" else poisoned(2)


def whole_run(directory: Path) -> None:
    """As the loop does it, up to the last output."""
    checkpoint.sweep(directory / "checkpoints")
    state = trained(directory, PLAN, train=TRAIN)
    steps = read(directory / "journal.jsonl").steps
    results.write_all(directory, PLAN, steps, checkpoint.make_path(directory / "checkpoints", state.step))


def forked(work: Callable[[], None], kill_at: int | None = None, directory: Path | None = None) -> int:
    """Exit code of a process that does the work, or is killed at one of its file operations in `directory`."""
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
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def outcome(directory: Path) -> dict[str, object]:
    """All that must be the same, whatever happened on the way."""
    files = {
        str(path.relative_to(directory)): path.read_bytes()
        for name in ("checkpoints", "model", "offending")
        for path in (directory / name).rglob("*")
        if path.is_file()
    }
    table = polars.read_parquet(directory / "metrics.parquet").select(polars.exclude("^time/.*$"))
    names = sorted(path.name for path in directory.iterdir())
    return {"names": names, "journal": computed(directory), "table": table.to_dicts(), "files": files}


def check(directory: Path, expected: Path) -> None:
    """Goes on to the end; everything must be as if nothing had been."""
    whole_run(directory)
    wanted, found = outcome(expected), outcome(directory)
    for part, value in wanted.items():
        assert found[part] == value, f"{directory.name}: {part}"


def main(root: Path) -> None:
    # polars is used in the forks alone: its threads would not survive one.
    expected = root / "expected"
    prepare(expected)
    assert forked(lambda: whole_run(expected)) == 0
    kill_at, code = 0, -signal.SIGKILL
    while code:
        kill_at += 1
        directory = root / str(kill_at)
        prepare(directory)
        code = forked(lambda: whole_run(directory), kill_at, directory)  # noqa: B023  # called at once
        assert code in (0, -signal.SIGKILL), (kill_at, code)
        assert forked(lambda: check(directory, expected)) == 0, kill_at  # noqa: B023
    print(kill_at - 1)


def prepare(directory: Path) -> None:
    directory.mkdir()
    (directory / "experiment.yaml").write_text("name: quadratic\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
