"""What the logits of each position are judged by. Torch is not imported for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gnflow.objective import Tokens

if TYPE_CHECKING:
    from torch import Tensor


class Targets(NamedTuple):
    """What the logits of each position are judged by."""

    ids: Tensor
    """(rows, time)"""
    weights: Tensor | None = None
    """(rows, time); None where all tokens weigh the same."""
    groups: Tensor | None = None
    """(rows, time), of multimodal data: 1 + index into GROUPS, or 0 for a token that bears no loss."""
    apart: int | None = None
    """Where image codes begin, if the softmax is over the ids of the target's modality alone."""
    total: Tensor | None = None
    """W, where it is not the sum of the weights here: of targets that are a part of more."""


Split: TypeAlias = Callable[[Tokens], tuple["Tensor", Targets]]


def split(tokens: Tokens) -> tuple[Tensor, Targets]:
    """(rows, time + 1) of text -> inputs and targets, (rows, time) each."""
    return tokens[:, :-1], Targets(tokens[:, 1:])
