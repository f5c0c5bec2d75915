"""The layout of multimodal micro-batches: (rows, time + 1, channels), with the id of a token in channel 0.

Channel 1 is the group of a token, which says what loss it bears as a target. The loss of one modality is taken by
setting the groups of the other to 0 in the micro-batch itself, so the objective and its compiled regions do not change.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gnflow.groups import GROUPS, Modality
from gnflow.models.loss import Split, Targets
from gnflow.objective import Tokens

IDS, GROUP, PIXELS = 0, 1, 2  # channels; all further ones are pixels


def find_groups(modality: Modality) -> tuple[int, ...]:
    """Return the groups of a modality, numbered as in channel 1."""
    return tuple(number for number, group in enumerate(GROUPS, 1) if group.modality == modality)


def weigh(image_weight: float, apart: int | None = None) -> Split:
    """Make the `split` of multimodal micro-batches: text weighs 1, an image code `image_weight`, other tokens 0.

    With `apart`, ids from that number on are image codes, and each modality has a softmax of its own.
    """

    def split(tokens: Tokens) -> tuple[Tensor, Targets]:
        ids, groups = tokens[:, 1:, IDS], tokens[:, 1:, GROUP]
        weights = torch.where(_is_among(groups, find_groups("image")), image_weight, (groups > 0).float())
        return tokens[:, :-1], Targets(ids, weights, groups, apart)

    return split


def keep_modality(tokens: Tokens, modality: Modality) -> Tokens:
    """Remove the loss on targets of the other modality from micro-batches."""
    ids, groups, pixels = torch.split(tokens, [1, 1, tokens.shape[-1] - PIXELS], dim=-1)
    return torch.cat((ids, torch.where(_is_among(groups, find_groups(modality)), groups, 0), pixels), dim=-1)


def split_by_modality(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """Return the micro-batches twice: with their image loss alone, and with their text loss alone."""
    return keep_modality(tokens, "image"), keep_modality(tokens, "text")


def _is_among(groups: Tensor, numbers: Sequence[int]) -> Tensor:
    return torch.stack([groups == number for number in numbers]).any(0)
