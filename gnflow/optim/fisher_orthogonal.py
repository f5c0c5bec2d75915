"""Fisher-orthogonal projection: adds back what the mean of a batch hides if its gradients disagree.

In coordinates where the Fisher matrix is the diagonal f, two mean gradients x1 and x2 are merged matrix by matrix into

    a = (x1 + x2) / 2,   d = x1 - x2,   o = d - a <d, f a> / <a, f a>           o is f-orthogonal to a
    x = a + b o,         b = beta <a, o / f> / <o, o / f>,  |b| <= beta_bound
    eta = <a, x / f> / <x, x / f>                                               optional length of x, in [1/2, 1]

Two leaves are FOP. 2^L leaves are merged pairwise up a binary tree as they come, so at most L + 1 gradients are alive.
Leaves enter `a` by the weight of their targets. A leaf is a group of micro-batches, or all micro-batches with a part of
their loss, such as that of images or that of text.

Source:   arXiv:2508.13898, equations 4, 16-18 (FOP); Lu & Armour 2026, arXiv:2605.16165 (ML-FOP-SOAP)
Differs:  ML-FOP-SOAP is a RECONSTRUCTION: only its abstract is public. The fold, its place before the momentum, the
          metric and the bounds are ours. FOP's Kronecker-factored Fisher matrix is here the transform's diagonal one
Use:      to study the projection. FOP-SOAP equals SOAP within the spread of seeds here, and ML-FOP-SOAP needs as many
          steps as its control without the projection (docs/results)
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Params, Scalar, Slopes
from gnflow.optim.descent import Descent, Probe, Rate, Slope
from gnflow.optim.fold_tree import fold_tree
from gnflow.optim.means import average_gradient, keep_positive, weigh_microbatches
from gnflow.optim.protocol import AnyState, AnyTransform, Fisher, Jit, eager
from gnflow.optim.stacks import Stacks


@dataclass(frozen=True)
class Projection:
    """The settings with which two gradients are merged."""

    beta: float = 1.0
    """Factor on b; 0 gives the plain mean."""
    beta_bound: float = 1.0
    """Largest |b|."""
    damping: float = 0.1
    """Number added to f, as a fraction of the mean of f in each matrix."""
    fisher: Literal["second_moment", "root"] = "second_moment"
    """The choice of f: the second moment, as in Fisher's matrix, or its root, as in the transform's preconditioner."""
    memory: float = 0.0
    """Decay rate, per step, of the mean of d that a `RememberedFold` uses."""


class Leaf(NamedTuple):
    """A mean gradient with its loss and its share of the whole batch."""

    gradient: Params
    loss: Scalar
    share: Scalar


class Node(NamedTuple):
    """A gradient in the tree, and its share of the whole batch."""

    gradient: Params
    share: Scalar


class Merged(NamedTuple):
    """The result of one merge: x, and the means of b and of |x| / |a| over all matrices."""

    gradient: Params
    beta: Scalar
    growth: Scalar


ChooseDifferences: TypeAlias = Callable[[str, Params, Params, Scalar, AnyState], Params]
"""(name of a merge, its two gradients, share of the first, state) -> the differences to use for its matrices."""


class FisherOrthogonal(Descent):
    """Descends along the merge of `leaves` mean gradients. Raises ValueError for a transform without a Fisher metric.

    `parts` maps a batch to one batch for each leaf, with some of its targets. Without it the leaves are groups of
    micro-batches.
    """

    def __init__(
        self,
        transform: AnyTransform,
        stacks: Stacks,
        microbatches: int = 2,
        jit: Jit = eager,
        rate: Rate | None = None,
        probe: Probe | None = None,
        *,
        leaves: int = 2,
        projection: Projection = Projection(),
        statistics: Literal["plain", "folded"] = "plain",
        second_moment: Literal["plain", "folded"] = "folded",
        layer_step: bool = False,
        parts: Callable[[Tensor], Sequence[Tensor]] | None = None,
        seed: int = 0,
    ) -> None:
        metric = transform.metric
        if metric is None:
            raise ValueError("a Fisher-orthogonal projection needs a transform that has a metric")
        if leaves < 2 or (parts is None and leaves > microbatches):
            raise ValueError(f"{leaves} leaves from {microbatches} micro-batches: at least 2, and one micro-batch each")

        def merge(one: Params, two: Params, share: Tensor, state: AnyState, differences: Params) -> Merged:
            fisher = damp_diagonal(metric.diagonal(state), projection)
            return merge_pair(one, two, share, fisher, projection, differences)

        def unfold(folded: Params, plain: Params, state: AnyState) -> tuple[Params, Metrics]:
            fisher = damp_diagonal(metric.diagonal(state), projection)
            if layer_step:
                folded = shorten(folded, metric.into(plain, state), fisher)
            direction = metric.back(folded, state)
            ratio = trees.norm(trees.pick(direction, fisher)) / keep_positive(trees.norm(trees.pick(plain, fisher)))
            return direction, {"fop/norm_ratio": ratio}

        super().__init__(
            transform, stacks, microbatches, jit, rate, probe, lambda slope, *rest: metric.update(*slope, *rest), seed
        )  # fmt: skip
        self.metric, self.projection, self.leaves = metric, projection, leaves
        self.divide = parts or (lambda batch: torch.tensor_split(batch, leaves))
        self.statistics, self.second_moment = statistics, second_moment
        self.into: Callable[[Params, AnyState], Params] = jit("rotate", metric.into)
        self.merge, self.unfold = jit("merge", merge), jit("unfold", unfold)
        self.compile_further(metric, jit)

    def compile_further(self, metric: Fisher[AnyState], jit: Jit) -> None:
        """Compile the regions that a subclass adds. Raises ValueError here, where a memory has no region."""
        if self.projection.memory:
            raise ValueError("a projection with a memory needs a RememberedFold")

    def find_slope(
        self, objective: Slopes, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Slope, Scalar, Metrics]:
        """Return the merged gradient as direction, and the plain mean or the merged gradient for the statistics."""
        if not self.projection.beta:
            return super().find_slope(objective, params, state, batch)
        return self.fold(objective, params, state, batch)

    def fold(
        self,
        objective: Slopes,
        params: Params,
        state: AnyState,
        batch: Tensor,
        choose: ChooseDifferences | None = None,
    ) -> tuple[Slope, Scalar, Metrics]:
        """Return what `find_slope` returns, with the differences that `choose` returns for each merge."""
        seen: dict[str, list[Scalar]] = defaultdict(list)

        def join(name: str, one: Node, two: Node) -> Node:
            both = one.share + two.share
            share = one.share / keep_positive(both)
            chosen = choose(name, one.gradient, two.gradient, share, state) if choose else {}
            outcome = self.merge(one.gradient, two.gradient, share, state, chosen)
            level, _, _ = name.partition(".")
            seen[f"fop/beta_{level}"].append(outcome.beta)
            seen[f"fop/growth_{level}"].append(outcome.growth)
            return Node(outcome.gradient, both)

        plain: Params = {}
        loss = torch.zeros((), device=next(iter(params.values())).device)

        def turn_leaves() -> Iterator[Node]:
            nonlocal plain, loss
            for gradient, value, share in self._compute_leaves(objective, params, batch):
                stacked = self.stacks.stack(gradient)
                loss = loss + share * value
                plain = trees.move_along(plain, stacked, share) if plain else trees.scale(stacked, share)
                yield Node(self.into(stacked, state), share)

        folded = fold_tree(turn_leaves(), join).gradient
        direction, metrics = self.unfold(folded, plain, state)
        metrics |= {name: torch.stack(found).mean() for name, found in seen.items()}
        chosen = {"plain": plain, "folded": direction}
        return Slope(direction, chosen[self.statistics], chosen[self.second_moment]), loss, metrics

    def _compute_leaves(self, objective: Slopes, params: Params, batch: Tensor) -> Iterator[Leaf]:
        """Compute the leaves one at a time."""
        parts = self.divide(batch)
        counts = torch.stack([weigh_microbatches(objective, part).sum() for part in parts])
        for part, share in zip(parts, counts / keep_positive(counts.sum()), strict=True):
            yield Leaf(*average_gradient(objective, params, part), share)


def merge_pair(
    one: Params,
    two: Params,
    share: Tensor,
    fisher: Params,
    projection: Projection,
    differences: Params | None = None,
) -> Merged:
    """Merge two gradients into x, matrix by matrix. Parameters without a diagonal get the mean.

    `share` is the weight of `one`; `differences` replace d for the matrices that they have.
    """
    result = {name: two[name] + share * (one[name] - two[name]) for name in one}
    betas, growths = [], []
    for name, f in fisher.items():
        mean, difference = result[name], (differences or {}).get(name, one[name] - two[name])
        overlap = _multiply(difference, f * mean) / keep_positive(_multiply(mean, f * mean))
        orthogonal = difference - overlap * mean
        size = _multiply(orthogonal, orthogonal / f)
        # For parallel gradients only rounding errors are left, and b would be arbitrary.
        rounding = (64 * torch.finfo(f.dtype).eps) ** 2 * (
            _multiply(mean, mean / f) + _multiply(difference, difference / f)
        )
        best = torch.where(size > rounding, _multiply(mean, orthogonal / f) / keep_positive(size), 0.0)
        beta = (projection.beta * best).clamp(-projection.beta_bound, projection.beta_bound)
        result[name] = mean + beta * orthogonal
        betas.append(beta.flatten())
        growths.append((_multiply(result[name], result[name]) / keep_positive(_multiply(mean, mean))).sqrt().flatten())
    return Merged(result, torch.cat(betas).mean(), torch.cat(growths).mean())


def shorten(folded: Params, plain: Params, fisher: Params) -> Params:
    """Scale x to eta x, matrix by matrix: the best length under the quadratic model with this Fisher matrix."""
    lengths = {
        name: _multiply(plain[name], folded[name] / f) / keep_positive(_multiply(folded[name], folded[name] / f))
        for name, f in fisher.items()
    }  # fmt: skip
    return {**folded, **{name: length * folded[name] for name, length in lengths.items()}}


def damp_diagonal(diagonal: Params, projection: Projection) -> Params:
    """Return f over its mean in each matrix, plus the damping. Before the first update it is constant."""
    chosen = diagonal if projection.fisher == "second_moment" else {name: v.sqrt() for name, v in diagonal.items()}
    return {
        name: f / keep_positive(f.mean(_choose_axes(f), keepdim=True)) + projection.damping
        for name, f in chosen.items()
    }


def _choose_axes(x: Tensor) -> tuple[int, ...]:
    return (-2, -1) if x.ndim > 1 else (-1,)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(_choose_axes(a), keepdim=True)
