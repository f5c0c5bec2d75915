"""A mean over micro-batches is one over all their targets: what one micro-batch of all the rows would give."""

import multimodal
import pytest
import torch
from multimodal import KINDS
from problems import noise

from gnflow import trees
from gnflow.compiler import build
from gnflow.objective import Objective
from gnflow.optim.fisher_orthogonal import FisherOrthogonal
from gnflow.optim.means import average_gradient, average_value, weigh_microbatches
from gnflow.optim.search import GeometricSearch
from gnflow.optim.soap import soap
from gnflow.optim.stacks import Stacks


@pytest.fixture(params=KINDS)
def given(request):
    """Objective, weights, three micro-batches whose targets weigh differently, and all their rows as one."""
    problem = multimodal.small(request.param)
    batch = multimodal.tokens(request.param, 3, 4)
    batch[0, :3, :, 1] = 0
    objective = build.build_objective(problem.model, multimodal.experiment(request.param, {"kind": "gauss_newton"}))
    assert len({objective.weight(tokens).item() for tokens in batch}) == 3
    return objective, problem.params, batch, batch.flatten(0, 1)


def test_a_mean_gradient_is_that_of_all_rows_together(given):
    objective, params, batch, rows = given
    torch.testing.assert_close(average_gradient(objective, params, batch), objective.gradient(params, rows))


def test_so_is_that_of_the_gauss_newton_model(given):
    objective, params, batch, rows = given
    moved = trees.move_along(params, noise(params, 7), 0.3)
    found = average_gradient(objective.build_model(params), moved, batch)
    torch.testing.assert_close(found, objective.curved(moved, params, rows))


def test_a_search_decides_on_all_rows_together(given):
    objective, params, batch, rows = given
    loss = average_value(lambda tokens: objective.value(params, tokens), batch, weigh_microbatches(objective, batch))
    torch.testing.assert_close(loss, objective.value(params, rows))
    downhill = trees.subtract(params, objective.gradient(params, rows)[0])
    model = objective.build_model(params)
    apart, together = (GeometricSearch(3)(objective, model, params, downhill, each, {}) for each in (batch, rows[None]))
    assert apart.accepted
    torch.testing.assert_close(apart.metrics, together.metrics)


@pytest.mark.parametrize("leaves", [2, 3])
def test_the_leaves_of_a_projection_weigh_what_their_targets_do(given, leaves):
    objective, params, batch, rows = given
    routes = dict.fromkeys(params, "soap")
    stacks = Stacks.by_rule(routes, {name: w.shape for name, w in params.items()})
    grown = list(FisherOrthogonal(soap(), stacks, 3, leaves=leaves)._compute_leaves(objective, params, batch))
    mean = trees.add(*[trees.scale(leaf.gradient, leaf.share) for leaf in grown[:2]])
    for leaf in grown[2:]:
        mean = trees.move_along(mean, leaf.gradient, leaf.share)
    torch.testing.assert_close(mean, objective.gradient(params, rows)[0])


def test_micro_batches_of_text_all_weigh_the_same():
    targets = torch.tensor([[[1.0, 2.0]], [[3.0, 5.0]], [[4.0, 9.0]]])

    def gradient(params, tokens):
        return {"w": tokens[0].clone()}, tokens.sum()

    found, loss = average_gradient(Objective(None, gradient, None), {"w": torch.zeros(2)}, targets)
    assert torch.equal(found["w"], targets.sum(0)[0] / 3)
    assert torch.equal(loss, targets.sum() / 3)


def test_without_any_target_there_is_nothing_to_follow():
    problem = multimodal.small("janus")
    batch = multimodal.tokens("janus", 2, 4)
    batch[..., 1] = 0
    objective = build.build_objective(problem.model, multimodal.experiment("janus", {"kind": "adamw"}))
    gradient, loss = average_gradient(objective, problem.params, batch)
    assert loss == 0
    assert not any(each.any() for each in gradient.values())
