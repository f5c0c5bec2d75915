"""The data of a plan, in the order in which a run takes it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from gnflow.compiler.plan import Plan
from gnflow.compiler.program import Program, State
from gnflow.data.microbatches import Microbatches, Prepared
from gnflow.data.prepare import prepare
from gnflow.train.past import make_beginning
from gnflow.train.start import make_start
from gnflow.workspace import Workspace


@dataclass(frozen=True)
class Feed:
    """The batches of a run of this plan. Iterating over it gives the batch of each step and never ends."""

    plan: Plan
    workspace: Workspace
    dataset: Prepared
    held_out: Tensor
    """The micro-batches of an evaluation; empty if no metric is measured on held-out data."""

    def take(self, number: int) -> Tensor:
        """Return the batch of one step (counted from 1): token ids (microbatches, rows, context + 1)."""
        first = self.plan.find_first_microbatch(number)
        return make_microbatches(self.plan, self.dataset).take(first, self.plan.microbatches)

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the batches of steps 1, 2, 3 and so on."""
        return (self.take(number) for number in count(1))

    def begin(self, program: Program) -> State:
        """Make the state before the first step, with the weights that `training.start` asks for. Raises SpecError."""
        return make_beginning(program, make_start(self.plan, program, self.dataset, self.workspace))


def batches(plan: Plan, workspace: Workspace | None = None, report: Callable[[str], None] = lambda line: None) -> Feed:
    """Open the data of a plan, and prepare it first if needed; by default in the project around the current directory.

    Raises DataError, EnvironmentProblem or DiskProblem.
    """
    workspace = workspace or Workspace.find(Path.cwd())
    dataset = prepare(plan.experiment.data, workspace, report)
    return Feed(plan, workspace, dataset, take_held_out(plan, dataset))


def make_microbatches(plan: Plan, dataset: Prepared) -> Microbatches:
    """Make the endless sequence of micro-batches that steps consume."""
    training = plan.experiment.training
    return dataset.make_microbatches(training.rows, training.seed)


def take_held_out(plan: Plan, dataset: Prepared) -> Tensor:
    """Return as many held-out micro-batches as the most demanding metric asks for."""
    if not plan.held_out:
        return torch.empty(0, dtype=torch.int64)
    return dataset.take_held_out(plan.experiment.training.rows, plan.held_out)
