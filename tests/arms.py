"""Arms of finished runs that take a given number of steps to a held-out loss of 3.4."""

from collections.abc import Sequence
from pathlib import Path

from run_directories import experiment, finished, steps

from gnflow.spec.experiment import Experiment
from gnflow.train.run import Run

TARGET = 3.4
PARAMETERS = 10_000


def arm(directory: Path, needed: Sequence[int | None], optimizer: str = "muon", trials: int = 8, **costs) -> list[Run]:
    """A run for each seed from 0 on, `directory/seed_<n>`; None: twenty steps that stay above the target."""
    return [
        run(directory / f"seed_{seed}", count, seed, optimizer, trials, **costs) for seed, count in enumerate(needed)
    ]


def run(directory: Path, needed: int | None, seed: int, optimizer: str = "muon", trials: int = 8, **costs) -> Run:
    """Loss 4.4 at the start, 3.9 half way, 3.4 at the end."""
    count = needed or 20
    end = 3.4 if needed else 3.5
    losses = [round(4.4 - (4.4 - end) * step / count, 6) for step in range(count + 1)]
    tree = experiment(optimizer, seed=seed).model_dump(mode="json")
    spec = Experiment.model_validate(tree | {"name": f"run_{seed}", "tuning": {"trials": trials}})
    return Run.load(finished(directory, spec, steps(losses, **costs), parameters=PARAMETERS))
