"""Small multimodal problems: both models in float64 with random weights, and micro-batches of every kind of token."""

import torch
from problems import Problem, noise
from torch import Tensor

from gnflow import trees
from gnflow.groups import GROUPS
from gnflow.models.attention import Kernel
from gnflow.models.emu3 import build_emu3
from gnflow.models.janus import build_janus
from gnflow.spec.experiment import Experiment
from gnflow.spec.model import Emu3, Janus

TEXT, CODES, PATCH, PLACEHOLDER = 7, 6, 4, 6
VOCABULARY = TEXT + CODES
SHAPE = {"layers": 2, "width": 8, "heads": 2, "hidden": 10}
KINDS = ("emu3", "janus")


def tokens(kind: str, *leading: int, time: int = 6, seed: int = 0) -> Tensor:
    """(*leading, time, channels): random ids, groups that suit them, and of Janus pixels where placeholders stand."""
    generator = torch.Generator().manual_seed(seed)

    def draw(options: list[int]) -> Tensor:
        return torch.tensor(options)[torch.randint(len(options), (*leading, time), generator=generator)]

    ids = draw([*range(VOCABULARY), *[PLACEHOLDER] * 4])
    by = {m: [0, *(n for n, group in enumerate(GROUPS, 1) if group.modality == m)] for m in ("text", "image")}
    groups = torch.where(ids >= TEXT, draw(by["image"]), draw(by["text"]))
    channels = [ids, groups]
    if kind == "janus":
        channels += [torch.where(ids == PLACEHOLDER, draw(list(range(256))), 0) for _ in range(PATCH)]
    return torch.stack(channels, dim=-1)


def network(kind: str, kernel: Kernel = "plain", **fields: object):
    if kind == "emu3":
        return build_emu3(Emu3.model_validate({**SHAPE, **fields}), VOCABULARY, kernel)
    spec = Janus.model_validate({**SHAPE, "code_width": 3, **fields})
    return build_janus(spec, TEXT, CODES, PATCH, PLACEHOLDER, kernel)


def small(kind: str, kernel: Kernel = "plain", **fields: object) -> Problem:
    """Two layers of width 8, every weight moved off its initial value, four rows of five tokens."""
    model = network(kind, kernel, **fields)
    params = trees.move_along(model.init(0), noise(model.init(0), 1), 0.1)
    return Problem(model, trees.map_tensors(lambda w: w.double(), params), tokens(kind, 4))


def weights_and_choice(kind: str, batch: Tensor) -> tuple[Tensor, Tensor]:
    """By the words of the specification: the weight of each target, and the ids that its softmax is over."""
    weights, choice = [], []
    for row in batch:
        for channels in row[1:]:
            target, number = int(channels[0]), int(channels[1])
            modality = GROUPS[number - 1].modality if number else None
            weights.append(0.0 if modality is None else 0.5 if (kind, modality) == ("emu3", "image") else 1.0)
            allowed = [True] * VOCABULARY
            if kind == "janus":
                allowed = [(i >= TEXT) == (target >= TEXT) for i in range(VOCABULARY)]
            choice.append(allowed)
    return torch.tensor(weights, dtype=torch.float64), torch.tensor(choice)


def experiment(kind: str, optimizer: dict[str, object], **sections: object) -> Experiment:
    """A tiny run on digits: one layer of width 16, no tracking, nothing compiled."""
    training = {"steps": 4, "rows": 4, "start": "scratch", **sections.pop("training", {})}  # type: ignore[arg-type]
    model = {"kind": kind, "layers": 1, "width": 16, "heads": 2, **sections.pop("model", {})}  # type: ignore[arg-type]
    return Experiment.model_validate(
        {
            "name": "tiny",
            "model": model,
            "data": {"kind": "multimodal", "style": kind, "image_tokenizer": {"kind": "vq", "codebook": 8}},
            "optimizer": optimizer,
            "training": training,
            "compile": {"mode": "off"},
            "tracking": "none",
            **sections,
        }
    )
