"""Runs a spec in processes that are killed at random moments, until the kill has hit so many of them.

    python killer.py SPEC SEED KILLS

Each attempt is a fork of this process, which has imported everything already: a real process, killed by SIGKILL from
outside, at a tenth of the cost of a new interpreter. A run that ends before that is moved aside, to NAME_1, NAME_2 ...,
and the next begins; the last ends undisturbed. Prints how many ended.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from forks import begun

from gnflow.commands.run import run


def wait_for(child: int, journal: Path, size: int) -> None:
    """Until the journal is that long, or the child has ended."""
    while (
        not (journal.exists() and journal.stat().st_size >= size)
        and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        time.sleep(0.0002)


def main(spec: Path, seed: int, kills: int) -> None:
    import gnflow.train.display
    import gnflow.train.loop  # noqa: F401

    drawn = random.Random(seed)
    directory = spec.parent / "runs" / spec.stem
    journal = directory / "journal.jsonl"
    hits = ended = 0
    while hits < kills:
        child = begun(lambda: run(spec))
        size = journal.stat().st_size if journal.exists() else 0
        if drawn.random() < 0.2:
            time.sleep(drawn.uniform(0.0, 1.5))
        else:
            wait_for(child, journal, size + drawn.choice([1, 300, 600, 1200, 2400]))
            time.sleep(drawn.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        hits += os.WIFSIGNALED(status)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            ended += 1
            directory.rename(directory.with_name(f"{directory.name}_{ended}"))
    assert os.waitstatus_to_exitcode(os.waitpid(begun(lambda: run(spec)), 0)[1]) == 0
    print(ended + 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
