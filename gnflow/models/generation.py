"""Images and captions, token by token, as pure functions of the weights and of what is drawn.

    l = l_u + guidance (l_c - l_u)      of image codes: logits after the prompt, and after a prompt that was dropped
    code ~ softmax(l / temperature)     over image codes alone; the largest at temperature 0
    word = argmax l                     of captions, over the ids of text and of the marks that end it

Every token takes a pass over the whole row: nothing is kept from one to the next.

Source:   Wu et al. 2024, arXiv:2410.13848 (guidance 5)
Code:     github.com/deepseek-ai/Janus generation_inference.py
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gnflow.models.modality import IDS
from gnflow.models.model import Model
from gnflow.objective import Params

UNKNOWN = -1
"""Stands in a row where a code is to be drawn."""


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn."""

    guidance: float = 5.0
    """1 follows the prompt as the model has learnt to; 0 takes no notice of it."""
    temperature: float = 1.0
    """0 always takes the likeliest code."""
    seed: int = 0


def paint(
    network: Model,
    params: Params,
    prompts: Tensor,
    dropped: Tensor,
    codes: range,
    channels: int,
    sampling: Sampling = Sampling(),
) -> Tensor:
    """The codes of one image for each row, (rows, unknowns), counted from 0.

    `prompts` and `dropped` are (rows, time) ids, with the same number of UNKNOWN in every row; what follows the last of
    them does not matter. `codes` are the ids of image codes.
    """
    generator = torch.Generator().manual_seed(sampling.seed)
    drafts = [prompts.clone(), dropped.clone()]
    places = [(draft == UNKNOWN).nonzero()[:, 1].view(len(draft), -1) for draft in drafts]
    found = []
    for i in range(places[0].shape[1]):
        told, untold = (
            _logits_at(network, params, draft, channels, place[:, i] - 1)[:, codes.start : codes.stop]
            for draft, place in zip(drafts, places, strict=True)
        )
        code = _draw(untold + sampling.guidance * (told - untold), sampling.temperature, generator)
        for draft, place in zip(drafts, places, strict=True):
            draft.scatter_(1, place[:, i : i + 1], code + codes.start)
        found.append(code)
    return torch.cat(found, dim=1)


def continue_rows(network: Model, params: Params, rows: Tensor, words: int, marks: int, most: int) -> Tensor:
    """The `most` likeliest ids of text that follow (rows, time, channels), one after another: (rows, most).

    Text has the ids below `words`, and the `marks` that may end it have the next ones. The first id is no mark: a
    caption that is asked for is not empty.
    """
    start = rows.shape[1]
    for i in range(most):
        with torch.no_grad():
            last = network.logits(params, rows)[:, -1, : words + (marks if i else 0)]
        following = torch.zeros_like(rows[:, :1])
        following[:, 0, IDS] = last.argmax(-1)
        rows = torch.cat((rows, following), dim=1)
    return rows[:, start:, IDS]


def _logits_at(network: Model, params: Params, ids: Tensor, channels: int, places: Tensor) -> Tensor:
    """The logits at one place of each row: (rows, vocabulary)."""
    inputs = torch.zeros((*ids.shape, channels), dtype=ids.dtype, device=ids.device)
    inputs[..., IDS] = ids.clamp(min=0)
    with torch.no_grad():
        return network.logits(params, inputs)[torch.arange(len(ids), device=ids.device), places]


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """(rows, 1)"""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    # On the host, so that a device does not change what is drawn.
    chances = torch.softmax(logits.double() / temperature, dim=-1).cpu()
    return torch.multinomial(chances, 1, generator=generator).to(logits.device)
