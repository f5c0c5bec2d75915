"""Recompute earlier states of a run from its checkpoints and its journal.

A step that was undone keeps its number, and its batch is not used again, so the step number is still the position in
the data. The state after it depends on the spec and the journal only, not on which checkpoints exist: after a skip it
is the state before the step, and after a rollback that of the last step on the schedule of checkpoints.
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
    """The history of a run, up to any step."""

    plan: Plan
    program: Program
    batches: Microbatches
    checkpoints: Path
    undone: Callable[[], set[int]]
    """The steps that the journal says were undone."""
    beginning: Callable[[], State] | None = None
    """Makes the state before the first step. It is called if there is no checkpoint to start from."""

    def take_batch(self, step: int) -> Tensor:
        """Return the batch that `step` consumes: (microbatches, rows, time + 1)."""
        return self.batches.take(self.plan.find_first_microbatch(step), self.plan.microbatches)

    def compute_state(self, step: int) -> State:
        """Recompute the state after `step`. Raises DiskProblem."""
        found = checkpoint.find_newest(self.checkpoints, up_to=step)
        if found.path is not None:
            state = checkpoint.load(found.path, self.program.make_template(), self.program.device)
        elif self.beginning is not None:
            state = self.beginning()
        else:
            raise DiskProblem(
                f"{self.checkpoints} has no good checkpoint up to step {step}; --fresh starts the run again"
            )
        undone = self.undone()
        while state.step < step:
            following = state.step + 1
            if following in undone:
                state = self.undo(following, state)
            else:
                state, _ = self.program.step(state, self.take_batch(following))
        return state

    def undo(self, step: int, before: State) -> State:
        """Return the state after a `step` that is undone; `before` is the state before it."""
        if self.plan.experiment.training.on_nonfinite == "rollback":
            before = self.compute_state(self.find_scheduled(step - 1))
        return before._replace(step=step)

    def find_scheduled(self, step: int) -> int:
        """Return the last step up to this one after which a checkpoint is kept; 0 is the start."""
        return step - step % self.plan.experiment.training.checkpoint_every


def make_beginning(program: Program, params: Params) -> State:
    """Make the state before the first step."""
    # Sums over all weights depend on the order and the alignment of the weights, so both are fixed here.
    return program.init(trees.clone(trees.pick(params, program.make_template().params)))
