"""How multimodal micro-batches are read: (rows, time + 1, channels), with the id of a token in channel 0.

Channel 1 is its group: which loss it bears as a target. To take the loss of one modality, the groups of the other are
set to 0 in the micro-batch itself; the objective, and its compiled regions, stay as they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gnflow.groups import GROUPS, Modality
from gnflow.models.loss import Split, Targets
from gnflow.objective import Tokens

IDS, GROUP, PIXELS = 0, 1, 2  # channels; pixels take all from there on


def groups_of(modality: Modality) -> tuple[int, ...]:
    """The groups of a modality, as channel 1 has them."""
    return tuple(number for number, group in enumerate(GROUPS, 1) if group.modality == modality)


def weigh(image_weight: float, apart: int | None = None) -> Split:
    """`split` for multimodal micro-batches: text weighs 1, an image code `image_weight`, what bears no loss 0.

    With `apart`, ids from there on are image codes, and each modality has a softmax of its own.
    """

    def split(tokens: Tokens) -> tuple[Tensor, Targets]:
        ids, groups = tokens[:, 1:, IDS], tokens[:, 1:, GROUP]
        weights = torch.where(_is_among(groups, groups_of("image")), image_weight, (groups > 0).float())
        return tokens[:, :-1], Targets(ids, weights, groups, apart)

    return split


def keep_modality(tokens: Tokens, modality: Modality) -> Tokens:
    """The same micro-batches with no loss on targets of the other modality."""
    ids, groups, pixels = torch.split(tokens, [1, 1, tokens.shape[-1] - PIXELS], dim=-1)
    return torch.cat((ids, torch.where(_is_among(groups, groups_of(modality)), groups, 0), pixels), dim=-1)


def split_by_modality(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """Micro-batches -> those of their image loss, and those of their text loss."""
    return keep_modality(tokens, "image"), keep_modality(tokens, "text")


def _is_among(groups: Tensor, numbers: Sequence[int]) -> Tensor:
    return torch.stack([groups == number for number in numbers]).any(0)
