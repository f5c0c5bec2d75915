import multimodal
import pytest
import torch
from multimodal import KINDS, weights_and_choice
from problems import moment

from gnflow.groups import GROUPS
from gnflow.metrics.evaluation import build_group_measure, build_tally


def by_token(problem, kind, micro):
    """(loss, weight, hit, group) of each target of a micro-batch, by the words of the specification."""
    weights, choice = weights_and_choice(kind, micro)
    logits = problem.model.compute_logits(problem.params, micro[:, :-1]).flatten(0, -2)
    found = []
    for z, allowed, weight, (target, number) in zip(
        logits, choice, weights, micro[:, 1:, :2].flatten(0, 1), strict=True
    ):
        z = z.where(allowed, -torch.inf)
        loss = (torch.logsumexp(z, 0) - z[target]).item()
        group = GROUPS[int(number) - 1] if number else None
        found.append((loss, weight.item(), int(z.argmax() == target), group))
    return found


def mean(pairs):
    pairs = list(pairs)
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_by_modality_and_task_are_those_of_the_definition(kind):
    problem = multimodal.small(kind)
    batch = multimodal.tokens(kind, 3, 4)
    found = build_group_measure(build_tally(problem.model))(moment(problem.params, batch))
    every = [each for micro in batch for each in by_token(problem, kind, micro)]
    expected = {"loss/held_out": mean((loss, w) for loss, w, _, _ in every)}
    for modality in ("text", "image"):
        expected[f"loss/{modality}"] = mean((loss, 1) for loss, _, _, g in every if g and g.modality == modality)
    for task, name in (("text", "text_only"), ("understanding", "understanding"), ("generation", "generation")):
        expected[f"loss/{name}"] = mean((loss, w) for loss, w, _, g in every if g and g.task == task)
    expected["image_accuracy"] = mean((hit, 1) for _, _, hit, g in every if g and g.modality == "image")
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-9)
    assert all(value.ndim == 0 for value in found.values())


def test_what_has_no_target_has_no_column():
    problem = multimodal.small("emu3")
    batch = multimodal.tokens("emu3", 1, 4)
    batch[..., 1] = torch.where(batch[..., 1] == 1, 1, 0)
    found = build_group_measure(build_tally(problem.model))(moment(problem.params, batch))
    assert set(found) == {"loss/held_out", "loss/text", "loss/text_only"}
    assert found["loss/held_out"].item() == pytest.approx(found["loss/text"].item())
