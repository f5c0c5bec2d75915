"""Announce what a run does before its first step, with the time that the same took before in this project."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from gnflow.errors import DiskProblem
from gnflow.spec.canonical import digest
from gnflow.spec.experiment import Experiment
from gnflow.train import disk
from gnflow.workspace import Workspace

FILE = "durations.json"  # name of the file in the cache of the project
WORTH_SAYING = 2.0  # seconds
KEPT = 500  # number of entries; the oldest are removed first


class Durations:
    """Seconds that the preparations of runs took, by kind of work and by the settings that it depends on."""

    def __init__(self, workspace: Workspace, experiment: Experiment) -> None:
        self._path = workspace.cache / FILE
        self._shape = digest(_select_settings(experiment))[:16]

    def describe(self, what: str) -> str:
        """Return `what`, and how long it took the last time if that is known and long enough to mention."""
        seconds = self._read().get(f"{what} {self._shape}")
        return what if seconds is None else f"{what} (it took {seconds:,.0f} s last time)"

    def keep(self, took: Mapping[str, float]) -> None:
        """Remember how long work took. A cache that cannot be written is no reason to end a run."""
        new = {f"{what} {self._shape}": round(seconds, 1) for what, seconds in took.items() if seconds >= WORTH_SAYING}
        if not new:
            return
        known = {key: seconds for key, seconds in self._read().items() if key not in new} | new
        with suppress(DiskProblem):
            disk.write_json(self._path, dict(list(known.items())[-KEPT:]))

    @contextmanager
    def time(self, what: str, report: Callable[[str], None]) -> Iterator[None]:
        """Say what is done in the block, and remember how long it took."""
        report(self.describe(what))
        start = time.perf_counter()
        yield
        self.keep({what: time.perf_counter() - start})

    def _read(self) -> dict[str, float]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        known = found.items() if isinstance(found, dict) else ()
        return {str(key): float(seconds) for key, seconds in known if isinstance(seconds, int | float)}


def _select_settings(experiment: Experiment) -> dict[str, object]:
    """Return the settings that the time depends on: not the name, the seed or the number of steps."""
    training = experiment.training
    return {
        **experiment.model_dump(mode="json", include={"model", "optimizer", "compile"}),
        "context": experiment.data.context,
        "training": [training.rows, training.device, training.precision],
    }
