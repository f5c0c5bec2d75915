"""Tracks runs all at the same moment, each in a process of its own; exits with the number of those that failed.

python rivals.py RUN..
"""

import sys
from functools import partial
from multiprocessing import Barrier
from pathlib import Path

from forks import begun, ended

from gnflow.commands.track import track
from gnflow.track import location, store
from gnflow.workspace import Workspace


def main(*runs: str) -> int:
    import gnflow.track.logged_model  # noqa: F401

    uri = location.find_tracking_uri(Workspace.find(Path.cwd()))
    together = Barrier(len(runs))

    def work(run: str) -> int:
        store.open_client(uri).search_experiments(max_results=1)  # a first look takes as long as all the rest
        together.wait()
        return track([Path(run)])

    children = [begun(partial(work, run)) for run in runs]
    return sum(ended(child) != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
