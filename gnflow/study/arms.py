"""Arms: runs that differ in nothing but their seed, and the ledger of what stands behind them."""

from typing import NamedTuple

from gnflow.train.run import Run


class Arm(NamedTuple):
    """Runs of one spec, in the order of their seeds."""

    name: str
    kind: str
    """That of the optimizer."""
    runs: tuple[Run, ...]
    trials: int
    """Configurations tried before the values of this spec were settled on."""
    learning_rates: dict[str, float]
    """Where in the optimizer (`inner.others`; empty for its own) -> rate."""
    update_rms: float | None
    """Median over the steps of all runs of norm(update) / sqrt(number of parameters)."""
    start: float | None
    """Held-out loss of the starting weights: the median over the seeds."""
    best: float | None
    """Best held-out loss: the median over the seeds."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """In order, one for each run."""
        return tuple(run.experiment.training.seed for run in self.runs)
