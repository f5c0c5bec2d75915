"""A Fisher-orthogonal fold that remembers: each merge uses a mean over steps of the difference of its two gradients.

    m_t = rho m_{t-1} + (1 - rho) (x1 - x2),   d_t = m_t / (1 - rho^t)          d_t takes the place of x1 - x2

There is one mean for each merge of the tree, in the coordinates of the weights, because the eigenbasis turns between
steps. The tree has one merge less than it has leaves, so eight leaves keep seven times the memory of the matrices.

Source:   Lu & Armour 2026, arXiv:2605.16165 (ML-FOP-SOAP), as a book reports it: the correction of the variance of
          modalities is part of the optimizer's state, and is stale when the mixture of modalities changes
Differs:  a reading of a SECONDARY source, which has no formula: the mean, its place and its bias correction are ours
Use:      with leaves that are modalities, whose difference lasts. Groups of micro-batches differ by noise alone, so
          that their mean difference falls to zero, and the projection with it
"""

from typing import NamedTuple

from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Params, Slopes
from gnflow.optim.fisher_orthogonal import FisherOrthogonal
from gnflow.optim.fold_tree import name_merges
from gnflow.optim.protocol import AnyState, Diagonal, Fisher, Jit, make_counter


class RememberedState(NamedTuple):
    """The state of the transform, and the mean difference of each merge."""

    inner: AnyState
    differences: dict[str, Params]
    """Merge, as `level.number`, -> m of each matrix, by stack."""
    updates: Tensor


class RememberedFold(FisherOrthogonal):
    """A `FisherOrthogonal` whose merges use the means d_t. The `memory` of its projection is rho."""

    def init(self, params: Params) -> RememberedState:
        """Return the state of the transform, and means of zero."""
        inner, stacked = super().init(params), self.stacks.stack(params)
        matrices = trees.pick(stacked, self.metric.diagonal(inner))
        differences = {merge: trees.zeros(matrices) for merge in name_merges(self.leaves)}
        return RememberedState(inner, differences, make_counter(params))

    def diagonal(self, state: AnyState) -> Diagonal | None:
        """Return the diagonal statistics of the transform."""
        return super().diagonal(state.inner)

    def compile_further(self, metric: Fisher[AnyState], jit: Jit) -> None:
        """Compile the means."""

        def recall(one: Params, two: Params, before: Params, updates: Tensor, state: AnyState) -> tuple[Params, Params]:
            others = {name: value for name, value in one.items() if name not in before}
            difference = {name: one[name] - two[name] for name in before}
            found = trees.pick(metric.back({**others, **difference}, state), before)
            kept = trees.move_towards(found, before, self.projection.memory)
            corrected = trees.scale(kept, 1 / (1 - self.projection.memory**updates))
            return kept, trees.pick(metric.into({**others, **corrected}, state), before)

        self.recall = jit("recall", recall)

    def step(
        self, objective: Slopes, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """Take one update, and move the means."""
        kept: dict[str, Params] = {}
        updates = state.updates + 1

        def differ(merge: str, one: Params, two: Params, inner: AnyState) -> Params:
            kept[merge], chosen = self.recall(one, two, state.differences[merge], updates, inner)
            return chosen

        slope, loss, seen = self.fold(objective, params, state.inner, batch, differ)
        moved, inner, metrics = self.advance(slope, objective, params, state.inner, batch)
        return moved, RememberedState(inner, kept, updates), {"loss/train": loss, **metrics, **seen}
