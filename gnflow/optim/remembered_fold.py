"""A Fisher-orthogonal fold that remembers: each merge uses a mean over steps of the difference of its two gradients.

    m_t = m_{t-1} + (1 - rho) (x1 - x2 - m_{t-1}),   d_t = m_t / (1 - rho^t)    d_t takes the place of x1 - x2

There is one mean for each merge of the tree, in the coordinates of the weights, because the eigenbasis turns between
steps. The tree has one merge less than it has leaves, so eight leaves keep seven times the memory of the matrices. A
merge with an empty leaf, such as that of a batch without images, changes no mean and uses none.

Source:   Lu & Armour 2026, arXiv:2605.16165 (ML-FOP-SOAP), as a book reports it: the correction of the variance of
          modalities is part of the optimizer's state, and is stale when the mixture of modalities changes
Differs:  a reading of a SECONDARY source, which has no formula: the mean, its place and its bias correction are ours
Use:      with leaves that are modalities, whose difference lasts. Groups of micro-batches differ by noise alone. Their
          mean difference is shorter, but the coefficient b grows to match until its bound, so that the projection
          follows remembered noise
"""

from typing import NamedTuple

from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Params, Scalar, Slopes
from gnflow.optim.fisher_orthogonal import FisherOrthogonal
from gnflow.optim.fold_tree import name_merges
from gnflow.optim.protocol import AnyState, Diagonal, Fisher, Jit, make_counter


class Memory(NamedTuple):
    """The memory of one merge: the mean of its difference, and the number of steps in it."""

    mean: Params
    """m of each matrix, by stack."""
    updates: Tensor
    """t, the number of steps in which both gradients were there."""


class RememberedState(NamedTuple):
    """The state of the transform, and the memory of each merge, by its name."""

    inner: AnyState
    merges: dict[str, Memory]


class RememberedFold(FisherOrthogonal):
    """A `FisherOrthogonal` whose merges use the means d_t. The `memory` of its projection is rho."""

    def init(self, params: Params) -> RememberedState:
        """Return the state of the transform, and means of zero."""
        inner = super().init(params)
        matrices = trees.pick(self.stacks.stack(params), self.metric.diagonal(inner))
        return RememberedState(
            inner, {name: Memory(trees.zeros(matrices), make_counter(params)) for name in name_merges(self.leaves)}
        )

    def diagonal(self, state: AnyState) -> Diagonal | None:
        """Return the diagonal statistics of the transform."""
        return super().diagonal(state.inner)

    def compile_further(self, metric: Fisher[AnyState], jit: Jit) -> None:
        """Compile the means."""
        rho = self.projection.memory

        def recall(one: Params, two: Params, share: Scalar, memory: Memory, state: AnyState) -> tuple[Memory, Params]:
            both = (share > 0) & (share < 1)
            found = metric.back({name: one[name] - two[name] for name in memory.mean}, state)
            mean = trees.select(both, trees.move_towards(memory.mean, found, 1 - rho), memory.mean)
            updates = memory.updates + both
            # In float64, because the correction of a long memory is a small difference of numbers near 1.
            chosen = trees.select(both, trees.scale(mean, 1 / (1 - rho ** updates.double())), found)
            return Memory(mean, updates), metric.into(chosen, state)

        self.recall = jit("recall", recall)

    def step(
        self, objective: Slopes, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """Take one update, and move the means."""
        merges: dict[str, Memory] = {}

        def choose(merge: str, one: Params, two: Params, share: Scalar, inner: AnyState) -> Params:
            merges[merge], chosen = self.recall(one, two, share, state.merges[merge], inner)
            return chosen

        slope, loss, seen = self.fold(objective, params, state.inner, batch, choose)
        moved, inner, metrics = self.advance(slope, objective, params, state.inner, batch)
        return moved, RememberedState(inner, merges), {"loss/train": loss, **metrics, **seen}
