"""The targets that the logits of each position are compared with. This module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gnflow.objective import Tokens

if TYPE_CHECKING:
    from torch import Tensor


class Targets(NamedTuple):
    """The targets that the logits of each position are compared with."""

    ids: Tensor
    """The right ids (rows, time)."""
    weights: Tensor | None = None
    """The weights in the loss (rows, time); None if all tokens weigh the same."""
    groups: Tensor | None = None
    """The groups of multimodal data (rows, time): 1 + index into GROUPS, or 0 for a token that bears no loss."""
    apart: int | None = None
    """The first id of image codes, if the softmax is over the ids of the target's modality alone."""
    total: Tensor | None = None
    """W, if these targets are a part of a micro-batch; None if W is the sum of the weights here."""
    noise: Tensor | None = None
    """Numbers in [0, 1) that choose the labels which the model draws (rows, time); None if it draws none."""


Split: TypeAlias = Callable[[Tokens], tuple["Tensor", Targets]]


def split(tokens: Tokens) -> tuple[Tensor, Targets]:
    """Split text (rows, time + 1) into inputs and targets, (rows, time) each."""
    return tokens[:, :-1], Targets(tokens[:, 1:])
