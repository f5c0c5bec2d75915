"""Step rules on a quadratic whose curvature is known, |scales w|^2 / 2, in float64."""

from math import sqrt

import pytest
import torch

from gnflow.objective import Objective
from gnflow.optim.adaptive_steps import KAPPA, LENGTH, BracketSearch, Decrement
from gnflow.optim.damping import add_damping

SCALES = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
ANCHOR = {"w": torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)}
BATCH = torch.zeros(2, 2, 3, dtype=torch.int64)


def bowl(true=1.0):
    """The loss, `true` times as high as the model around any anchor says."""

    def value(params, tokens):
        return 0.5 * (SCALES * params["w"]).square().sum()

    return Objective(
        lambda params, tokens: true * value(params, tokens),
        torch.func.grad_and_value(value),
        lambda params, anchor, tokens: (
            {"w": SCALES.square() * params["w"]},
            value(params, tokens) + (true - 1) * value(anchor, tokens),
        ),
        lambda direction, anchor, tokens: {"w": SCALES.square() * direction["w"]},
    )


def number(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("damping", [0.0, 0.7])
@pytest.mark.parametrize("kappa", [0.5, 2.0])
def test_the_decrement_is_that_of_the_damped_system(kappa, damping):
    matrix = torch.diag(SCALES.square()) + damping * torch.eye(3, dtype=torch.float64)
    slope = SCALES.square() * ANCHOR["w"]
    goal = {"w": ANCHOR["w"] - torch.linalg.solve(matrix, slope)}
    loss = bowl()
    model = loss.build_model(ANCHOR)
    model = add_damping(model, ANCHOR, number(damping)) if damping else model
    found = Decrement(kappa)(loss, model, ANCHOR, goal, BATCH, {})
    nu = (slope @ torch.linalg.solve(matrix, slope)).sqrt()
    torch.testing.assert_close(found.metrics["gn/decrement"], nu)
    torch.testing.assert_close(found.metrics["gn/alpha"], 1 / (1 + kappa * nu))
    torch.testing.assert_close(found.params["w"], ANCHOR["w"] + (goal["w"] - ANCHOR["w"]) / (1 + kappa * nu))
    torch.testing.assert_close(found.metrics["gn/gain_ratio"], number(1.0))
    assert (found.accepted.item(), found.memory) == (True, {})


@pytest.mark.parametrize(("true", "factor"), [(1.0, 2 / 3), (0.5, 1.0), (0.1, 1.5), (-1.0, 1.5)])
def test_an_adaptive_kappa_follows_the_gain_ratio(true, factor):
    loss = bowl(true)
    found = Decrement(1.0, adaptive=True)(
        loss, loss.build_model(ANCHOR), ANCHOR, {"w": 0 * ANCHOR["w"]}, BATCH, {KAPPA: number(0.6)}
    )
    assert found.metrics["gn/gain_ratio"].item() == pytest.approx(true)
    assert found.memory[KAPPA].item() == pytest.approx(0.6 * factor)


@pytest.mark.parametrize(("best", "taken"), [(0.5, 0.5 / sqrt(0.5)), (1.0, 1.0), (3.0, sqrt(2.0))])
def test_a_bracket_goes_to_the_best_of_three_lengths_and_is_there_the_next_time(best, taken):
    goal = {"w": ANCHOR["w"] * (1 - 1 / best)}  # the minimum is at `best` of the way
    found = BracketSearch(2)(bowl(), bowl().build_model(ANCHOR), ANCHOR, goal, BATCH, {LENGTH: number(1.0)})
    assert found.metrics["gn/alpha"].item() == pytest.approx(taken)
    assert found.memory[LENGTH].item() == pytest.approx(taken)


@pytest.mark.parametrize("bad", [10.0, torch.inf, torch.nan])
def test_a_refused_bracket_is_halved(bad):
    goal = {"w": ANCHOR["w"] * bad}
    found = BracketSearch(2)(bowl(), bowl().build_model(ANCHOR), ANCHOR, goal, BATCH, {LENGTH: number(0.8)})
    assert not found.accepted
    assert torch.equal(found.params["w"], ANCHOR["w"])
    assert found.memory[LENGTH].item() == pytest.approx(0.4)
