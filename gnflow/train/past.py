"""The states that a run has had, computed again from its checkpoints as its journal tells it.

A step that was undone keeps its number and has used up its batch, so the position in the data is the step number still.
What became of it is a function of the spec and the journal alone, whichever checkpoints happen to be there: after a
skip, the state before it; after a rollback, that of the last step on the schedule of checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gnflow import trees
from gnflow.compiler.plan import Plan
from gnflow.compiler.program import Program, State
from gnflow.data.microbatches import Microbatches
from gnflow.errors import DiskProblem
from gnflow.objective import Params
from gnflow.train import checkpoint

SKIPPED, ROLLED_BACK = "skipped", "rolled_back"  # names of events


@dataclass(frozen=True)
class Past:
    """What a run has done, up to any step."""

    plan: Plan
    program: Program
    batches: Microbatches
    checkpoints: Path
    undone: Callable[[], set[int]]
    """The steps that the journal says were undone."""
    beginning: Callable[[], State] | None = None
    """The state before the first step, for when there is no checkpoint to go on from."""

    def batch(self, step: int) -> Tensor:
        """What `step` consumes, (microbatches, rows, time + 1)."""
        return self.batches.take((step - 1) * self.plan.microbatches, self.plan.microbatches)

    def state(self, step: int) -> State:
        """The state after `step`. Raises DiskProblem."""
        found = checkpoint.newest(self.checkpoints, lambda saved: saved <= step)
        if found.path is not None:
            state = checkpoint.load(found.path, self.program.template(), self.program.device)
        elif self.beginning is not None:
            state = self.beginning()
        else:
            raise DiskProblem(f"{self.checkpoints} has no good checkpoint up to step {step}")
        undone = self.undone()
        while state.step < step:
            following = state.step + 1
            if following in undone:
                state = self.instead(following, state)
            else:
                state, _ = self.program.step(state, self.batch(following))
        return state

    def instead(self, step: int, before: State) -> State:
        """The state after a `step` that is undone, `before` being the one before it."""
        if self.plan.experiment.training.on_nonfinite == "rollback":
            before = self.state(self.scheduled(step - 1))
        return before._replace(step=step)

    def scheduled(self, step: int) -> int:
        """The last step up to this one after which a checkpoint is kept; 0 is the start."""
        return step - step % self.plan.experiment.training.checkpoint_every


def beginning(program: Program, params: Params) -> State:
    """The state before the first step."""
    # In one order, since sums over all weights follow it; aligned as torch aligns, wherever they were read from.
    return program.init(trees.clone(trees.pick(params, program.template().params)))
