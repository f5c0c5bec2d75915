import multimodal
import pytest
import torch
from multimodal import KINDS, weights_and_choice
from problems import moment
from torch.nn import functional

from gnflow import trees
from gnflow.groups import GROUPS
from gnflow.metrics.conflict import build_modality_conflict, compare
from gnflow.metrics.protocol import Subject
from gnflow.models.loss import compute_cross_entropy, compute_total_weight
from gnflow.objective import Objective
from gnflow.spec.training import ModalityConflict


def objective(model):
    def value(params, tokens):
        inputs, targets = model.split(tokens)
        return compute_cross_entropy(model.compute_logits(params, inputs), targets)

    def heavy(tokens):
        return compute_total_weight(model.split(tokens)[1])

    return Objective(value, torch.func.grad_and_value(value), None, weight=heavy)


def measured(problem, batch):
    metric = build_modality_conflict(
        ModalityConflict(), Subject(None, problem.model, None, None, lambda: problem.model)
    )
    return metric.measure(moment(problem.params, batch, objective(problem.model)))


def gradient(problem, kind, batch, modality):
    """Of the mean loss of the targets of one modality, all micro-batches together."""
    rows = batch.flatten(0, 1)
    _, choice = weights_and_choice(kind, rows)
    wanted = torch.tensor([n > 0 and GROUPS[n - 1].modality == modality for n in rows[:, 1:, 1].flatten()])

    def loss(params):
        z = problem.model.compute_logits(params, rows[:, :-1]).flatten(0, -2).where(choice, -torch.inf)
        return functional.cross_entropy(z[wanted], rows[:, 1:, 0].flatten()[wanted])

    return torch.func.grad(loss)(problem.params)


@pytest.mark.parametrize("kind", KINDS)
def test_cosines_and_ratios_are_those_of_the_gradients_of_both_losses(kind):
    problem = multimodal.small(kind)
    batch = multimodal.tokens(kind, 3, 4)
    found = measured(problem, batch[:2])
    text, image = (gradient(problem, kind, batch[:2], modality) for modality in ("text", "image"))

    def expected(names):
        names = [n for n in names if text[n].ndim == 2 and text[n].any() and image[n].any()]
        cosines = [(text[n] * image[n]).sum() / text[n].norm() / image[n].norm() for n in names]
        ratios = [image[n].norm() / text[n].norm() for n in names]
        return [torch.stack(each).mean().item() for each in (cosines, ratios)]

    for suffix, names in (
        ("", problem.model.hidden),
        ("/blocks.0", problem.model.blocks["blocks.0"]),
        ("/blocks.1", problem.model.blocks["blocks.1"]),
    ):
        names = sorted(names)
        columns = [found[f"conflict/{what}{suffix}"].item() for what in ("cosine", "norm_ratio")]
        assert columns == pytest.approx(expected(names), rel=1e-6)


def test_heads_of_their_own_are_in_no_conflict():
    problem = multimodal.small("janus")
    found = measured(problem, multimodal.tokens("janus", 2, 4))
    assert not [name for name in found if "head" in name]
    assert "conflict/cosine/generation" in found


def test_parallel_and_opposite_gradients_have_the_cosines_of_that():
    problem = multimodal.small("emu3")
    same = compare(problem.model, problem.params, trees.scale(problem.params, 3.0))
    assert same["conflict/cosine"].item() == pytest.approx(1.0)
    assert same["conflict/norm_ratio"].item() == pytest.approx(3.0)
    assert compare(problem.model, problem.params, trees.scale(problem.params, -1.0))[
        "conflict/cosine/head"
    ].item() == pytest.approx(-1.0)
    assert compare(problem.model, problem.params, trees.zeros(problem.params)) == {}
