"""The loss on held-out micro-batches and, for multimodal data, the loss of each modality and of each task.

loss/held_out      weighted mean over all targets of the loss that is minimised
loss/text, image   mean cross-entropy of the targets of one modality, without weights
loss/text_only, understanding, generation
                   mean over the targets of one task, weighted as in the loss
image_accuracy     part of the image codes that have the largest logit, given all ids before them
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gnflow.groups import GROUPS
from gnflow.metrics.protocol import Measure, Metric, Moment, Subject
from gnflow.models.loss import compute_token_losses, mask_logits
from gnflow.models.model import Model
from gnflow.objective import Metrics, Params, Scalar, Tokens
from gnflow.spec import training
from gnflow.spec.multimodal import Multimodal

LOSS, COUNT, WEIGHTED, WEIGHT, RIGHT = range(5)
TASKS = {"text": "text_only", "understanding": "understanding", "generation": "generation"}


def build_loss(spec: training.Loss, subject: Subject) -> Metric:
    """Build the metric. For multimodal data it also reports the loss of each modality and of each task."""
    multimodal = isinstance(subject.experiment.data, Multimodal)
    measure = build_group_measure(subject.jit("tally", build_tally(subject.network))) if multimodal else measure_loss
    return Metric(measure, spec.microbatches, decides=True)


def measure_loss(at: Moment) -> Metrics:
    """Measure the mean loss of the micro-batches."""
    losses = at.objective.crew.gather_values(
        lambda number: at.objective.value(at.params, at.batch[number]), len(at.batch)
    )
    return {"loss/held_out": losses.mean()}


def build_tally(network: Model) -> Callable[[Params, Tokens], Tensor]:
    """Build (params, tokens) -> (groups, 5): sums of losses, tokens, weighted losses, weights and hits by group."""

    def tally(params: Params, tokens: Tokens) -> Tensor:
        inputs, targets = network.split(tokens)
        assert targets.weights is not None
        assert targets.groups is not None
        logits = network.compute_logits(params, inputs)
        losses = compute_token_losses(logits, targets)
        weights = targets.weights.to(losses.dtype)
        right = (mask_logits(logits, targets).argmax(-1) == targets.ids).to(losses.dtype)
        each = torch.stack((losses, torch.ones_like(losses), weights * losses, weights, right), dim=-1)
        member = torch.stack([targets.groups == number for number in range(1, len(GROUPS) + 1)])
        # This is no product of matrices, because TF32 would round every loss.
        return torch.where(member.unsqueeze(-1), each, 0).sum((1, 2))

    return tally


def build_group_measure(tally: Callable[[Params, Tokens], Tensor]) -> Measure:
    """Build a function that measures the loss over all groups and by group.

    A modality or task without targets has no column.
    """

    def measure(at: Moment) -> Metrics:
        sums = torch.stack([tally(at.params, tokens) for tokens in at.batch]).sum(0)
        return {"loss/held_out": _divide(sums.sum(0), WEIGHTED, WEIGHT), **_split_losses(sums)}

    return measure


def _split_losses(sums: Tensor) -> Metrics:
    def add_up(**what: str) -> Tensor:
        return sums[[all(getattr(group, key) == word for key, word in what.items()) for group in GROUPS]].sum(0)

    ratios = {
        **{f"loss/{modality}": (add_up(modality=modality), LOSS, COUNT) for modality in ("text", "image")},
        **{f"loss/{name}": (add_up(task=task), WEIGHTED, WEIGHT) for task, name in TASKS.items()},
        "image_accuracy": (add_up(modality="image"), RIGHT, COUNT),
    }
    return {name: _divide(*ratio) for name, ratio in ratios.items() if ratio[0][ratio[2]] > 0}


def _divide(sums: Tensor, over: int, under: int) -> Scalar:
    return sums[..., over] / sums[..., under].clamp(min=torch.finfo(sums.dtype).tiny)
