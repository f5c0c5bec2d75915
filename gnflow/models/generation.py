"""Generation of images and captions, token by token, by pure functions of the weights and a seed.

    l = l_u + guidance (l_c - l_u)      image codes: l_c are the logits after the prompt, l_u those after a dropped one
    code ~ softmax(l / temperature)     over image codes alone; the likeliest code at temperature 0
    word = argmax l                     captions: over the ids of text and of the marks that end it

Every token takes a pass over the whole row; nothing is cached between tokens.

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
"""The id that marks a place where a code is to be drawn."""


@dataclass(frozen=True)
class Sampling:
    """The settings with which codes are drawn."""

    guidance: float = 5.0
    """Weight of the prompt: 1 follows it as the model has learnt to, 0 ignores it."""
    temperature: float = 1.0
    """Randomness of the draw: 0 always takes the likeliest code."""
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
    """Draw the codes of one image for each row: (rows, unknowns), counted from 0.

    `prompts` and `dropped` are (rows, time) ids with the same number of UNKNOWN in every row; ids after the last
    UNKNOWN do not matter. `codes` are the ids of image codes.
    """
    generator = torch.Generator().manual_seed(sampling.seed)
    drafts = [prompts.clone(), dropped.clone()]
    places = [(draft == UNKNOWN).nonzero()[:, 1].view(len(draft), -1) for draft in drafts]
    found = []
    for i in range(places[0].shape[1]):
        told, untold = (
            _compute_logits(network, params, draft, channels, place[:, i] - 1)[:, codes.start : codes.stop]
            for draft, place in zip(drafts, places, strict=True)
        )
        code = _draw(untold + sampling.guidance * (told - untold), sampling.temperature, generator)
        for draft, place in zip(drafts, places, strict=True):
            draft.scatter_(1, place[:, i : i + 1], code + codes.start)
        found.append(code)
    return torch.cat(found, dim=1)


def continue_rows(network: Model, params: Params, rows: Tensor, words: int, marks: int, most: int) -> Tensor:
    """Continue each row of (rows, time, channels) by its `most` likeliest next ids of text, one by one: (rows, most).

    The ids of text lie below `words`; the next ones are the `marks` that may end it. The first id is never a mark, so
    that no caption is empty.
    """
    start = rows.shape[1]
    for i in range(most):
        with torch.no_grad():
            last = network.compute_logits(params, rows)[:, -1, : words + (marks if i else 0)]
        following = torch.zeros_like(rows[:, :1])
        following[:, 0, IDS] = last.argmax(-1)
        rows = torch.cat((rows, following), dim=1)
    return rows[:, start:, IDS]


def _compute_logits(network: Model, params: Params, ids: Tensor, channels: int, places: Tensor) -> Tensor:
    """Return the logits at one place of each row: (rows, vocabulary)."""
    inputs = torch.zeros((*ids.shape, channels), dtype=ids.dtype, device=ids.device)
    inputs[..., IDS] = ids.clamp(min=0)
    with torch.no_grad():
        return network.compute_logits(params, inputs)[torch.arange(len(ids), device=ids.device), places]


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw one code for each row: (rows, 1)."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    # The draw is done on the host, so that it does not depend on the device.
    chances = torch.softmax(logits.double() / temperature, dim=-1).cpu()
    return torch.multinomial(chances, 1, generator=generator).to(logits.device)
