"""The functions of a problem that an optimizer may call, and the types that the whole package shares.

This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gnflow.crew import ALONE, Crew

if TYPE_CHECKING:
    from torch import Tensor

Params: TypeAlias = dict[str, "Tensor"]  # also gradients, updates, displacements
Metrics: TypeAlias = dict[str, "Tensor"]  # 0-D, left on the device
Tokens: TypeAlias = "Tensor"  # (rows, time + 1) of one micro-batch: inputs and, shifted by one, targets
Scalar: TypeAlias = "Tensor"  # 0-D


Statistic: TypeAlias = Callable[["Tensor", "Tensor"], Params]
"""(inputs of a linear layer (rows, time, in), gradients at its outputs (rows, time, out)) -> tensors by key. They are
quadratic in the gradients, or do not depend on them."""


class Watch(NamedTuple):
    """The statistics of linear layers that are asked for, and the labels that they are taken with."""

    statistics: Mapping[str, Statistic]
    """Weight -> its statistic. The mean over all cotangents of the logits is taken."""
    expanded: bool = False
    """Whether the logits are expanded one by one, instead of drawing a label for each target."""

    @property
    def form(self) -> tuple[str, ...]:
        """The names of the statistics. Watches of one form give tensors of the same keys and shapes."""
        return tuple(f"{name}:{statistic.__name__}" for name, statistic in self.statistics.items())


def weigh_equally(tokens: Tokens) -> Scalar:
    """Return 1, the weight of a micro-batch if all micro-batches weigh the same."""
    import torch

    return torch.ones((), device=tokens.device)


def _refuse_product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
    raise NotImplementedError("this objective has no `product`: give it one to use its curvature")


def _refuse_diagonal(params: Params, noise: Tensor, tokens: Tokens) -> Params:
    raise NotImplementedError("this objective has no `diagonal`: give it one for a method that estimates curvature")


def _refuse_signals(params: Params, noise: Tensor, watch: Watch, tokens: Tokens) -> dict[str, Params]:
    raise NotImplementedError(
        "this objective has no `signals`: give it some for a method that looks into linear layers"
    )


class LocalModel(NamedTuple):
    """A convex model of a loss around one anchor, with estimates of its curvature there.

    Like an `Objective`, it is evaluated one micro-batch at a time.
    """

    value: Callable[[Params, Tokens], Scalar]
    """(params, tokens) -> value of the model."""
    gradient: Callable[[Params, Tokens], tuple[Params, Scalar]]
    """(params, tokens) -> (gradient, value) of the model."""
    product: Callable[[Params, Tokens], Params]
    """(direction, tokens) -> the curvature of the model at its anchor, times `direction`."""
    diagonal: Callable[[Tensor, Tokens], Params]
    """(noise, tokens) -> an estimate of the diagonal of the Gauss-Newton matrix at the anchor; see `Objective`."""
    signals: Callable[[Tensor, Watch, Tokens], dict[str, Params]]
    """(noise, watch, tokens) -> statistics of linear layers at the anchor; see `Objective`."""
    weight: Callable[[Tokens], Scalar] = weigh_equally
    """tokens -> the weight of the micro-batch in a mean over several."""
    crew: Crew = ALONE
    """The processes that evaluate it, each on some of the micro-batches of a mean."""
    damping: Scalar | None = None
    """The multiple of the identity that the curvature contains; None if it contains none."""


class Objective(NamedTuple):
    """A loss, evaluated one micro-batch at a time. All but `weight` are means over the tokens of a micro-batch."""

    value: Callable[[Params, Tokens], Scalar]
    """(params, tokens) -> loss."""
    gradient: Callable[[Params, Tokens], tuple[Params, Scalar]]
    """(params, tokens) -> (gradient, loss)."""
    curved: Callable[[Params, Params, Tokens], tuple[Params, Scalar]]
    """(params, anchor, tokens) -> (gradient, value) at `params` of the convex model of the loss around `anchor`.

    `params` may name a part of the anchor's parameters. The others stay at the anchor and have no gradient.
    """
    product: Callable[[Params, Params, Tokens], Params] = _refuse_product
    """(direction, anchor, tokens) -> the curvature of that model at `anchor`, times `direction`.

    `direction` may name a part of the anchor's parameters, as `params` may in `curved`.
    """
    weight: Callable[[Tokens], Scalar] = weigh_equally
    """tokens -> the weight of the micro-batch in a mean over several."""
    diagonal: Callable[[Params, Tensor, Tokens], Params] = _refuse_diagonal
    """(params, noise, tokens) -> an unbiased estimate of the diagonal of the Gauss-Newton matrix at `params`.

    It uses labels that the model draws. `noise` chooses them: it is uniform in [0, 1), with a number for each target.
    """
    signals: Callable[[Params, Tensor, Watch, Tokens], dict[str, Params]] = _refuse_signals
    """(params, noise, watch, tokens) -> statistics of linear layers by weight, of inputs and gradients at outputs."""
    curved_value: Callable[[Params, Params, Tokens], Scalar] | None = None
    """(params, anchor, tokens) -> the value that `curved` returns, for less work. Without it `curved` is used."""
    crew: Crew = ALONE
    """The processes that evaluate it, each on some of the micro-batches of a mean."""

    def build_model(self, anchor: Params) -> LocalModel:
        """Return the convex model around `anchor`."""

        def value(params: Params, tokens: Tokens) -> Scalar:
            if self.curved_value is None:
                return self.curved(params, anchor, tokens)[1]
            return self.curved_value(params, anchor, tokens)

        return LocalModel(
            value,
            lambda params, tokens: self.curved(params, anchor, tokens),
            lambda direction, tokens: self.product(direction, anchor, tokens),
            lambda noise, tokens: self.diagonal(anchor, noise, tokens),
            lambda noise, watch, tokens: self.signals(anchor, noise, watch, tokens),
            self.weight,
            self.crew,
        )


Slopes: TypeAlias = Objective | LocalModel
"""Either type: both have a gradient and a weight for each micro-batch, and a crew."""
