"""The attention of transformers' layers, computed by the kernels here, which have a tangent.

    softmax(c tanh(s q k' / c) + mask) v        s: the scaling of the layer; c: its soft cap, if it has one

Causal attention without a cap goes to the kernel that the plan chose; any other is written out.
"""

from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn

from gnflow.models.attention import KERNELS, Kernel

NAMES: dict[Kernel, str] = {"plain": "gnflow_plain", "flash": "gnflow_tiled"}
"""The names under which transformers knows the kernels. It takes a name with `flash` for a package of its own."""
UNKNOWN = ("s_aux", "sinks", "position_bias", "alibi")
"""Arguments of attention that no kernel here takes."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    kernel: Kernel,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Map (rows, heads, time, size) to (rows, time, heads, size). Without a mask, attention is causal.

    A mask (1, 1, time, time) is true where a position may look. `others` are those of other kernels.
    """
    for name in UNKNOWN:
        if others.get(name) is not None:
            raise NotImplementedError(f"its attention has `{name}`")
    size = query.shape[-1]
    scaling = size**-0.5 if scaling is None else scaling
    if key.shape[1] != query.shape[1]:
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
    if attention_mask is None and not softcap and value.shape[-1] == size:
        factor = scaling * sqrt(size)
        out = KERNELS[kernel](query if abs(factor - 1) < 1e-12 else query * factor, key, value)
    else:
        out = _attend_anywhere(query * scaling, key, value, attention_mask, softcap)
    return out.transpose(1, 2), None


def _attend_anywhere(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    """Compute attention with any mask, and with a soft cap on its scores."""
    scores = query @ key.transpose(-2, -1)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        position = torch.arange(scores.shape[-1], device=scores.device)
        mask = position <= position.unsqueeze(-1)
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1) @ value


def register() -> None:
    """Tell transformers the kernels. There is no function for their masks: stages have their masks already."""
    from transformers import AttentionInterface

    for kernel, name in NAMES.items():
        AttentionInterface.register(name, partial(attend, kernel=kernel))
