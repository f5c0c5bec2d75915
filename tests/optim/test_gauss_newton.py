"""Gauss-Newton on losses whose model is known in closed form: a convex quadratic is its own Gauss-Newton model."""

from itertools import pairwise

import pytest
import torch

from gnflow import trees
from gnflow.objective import Objective
from gnflow.optim import adamw
from gnflow.optim.adaptive_steps import BracketSearch, Decrement
from gnflow.optim.averages import average_last, fade
from gnflow.optim.descent import Descent
from gnflow.optim.gauss_newton import Block, GaussNewton
from gnflow.optim.search import FullStep, GeometricSearch
from gnflow.optim.stacks import Stacks

SCALES = torch.tensor([1.0, 10.0, 100.0])
STACKS = Stacks.by_rule({"w": "adamw"}, {"w": (3,)})


def bowl(log=None, barrier=0.0):
    """|scales w|^2 / 2, its model the same; `log` notes (region, first token) of every call."""

    def note(region, tokens):
        if log is not None:
            log.append((region, int(tokens.flatten()[0])))

    def value(params, tokens):
        note("value", tokens)
        return 0.5 * (SCALES * params["w"]).square().sum() + barrier * params["w"].abs().sum()

    def model(params):
        return 0.5 * (SCALES * params["w"]).square().sum()

    def curved(params, anchor, tokens):
        note("curved", tokens)
        return {"w": SCALES.square() * params["w"]}, model(params)

    return Objective(
        value, lambda params, tokens: ({"w": SCALES.square() * params["w"]}, value(params, tokens)), curved
    )


def whole(rate=0.1):
    return {"all": Block(("w",), Descent(adamw(rate), STACKS))}


def solver(search, inner_steps=30, warm_start=True, rate=0.1):
    return GaussNewton(whole(rate), inner_steps, search, warm_start)


def batch(microbatches):
    return torch.arange(microbatches).view(-1, 1, 1).expand(-1, 2, 3)


def test_every_microbatch_is_used_once_by_the_solve_or_by_the_search_alone():
    log = []
    optimizer = solver(GeometricSearch(trials=3, microbatches=4), inner_steps=5)
    assert (optimizer.cost.solve, optimizer.cost.search, optimizer.cost.passes) == (5, 4, 6)
    params = {"w": torch.ones(3)}
    optimizer.step(bowl(log), params, optimizer.init(params), batch(optimizer.cost.microbatches))
    assert [tokens for region, tokens in log if region == "curved"][:5] == [0, 1, 2, 3, 4]
    assert {tokens for region, tokens in log[5:]} == {5, 6, 7, 8}
    calls = {region: sum(1 for r, _ in log if r == region) for region in ("value", "curved")}
    assert calls == {"value": (3 + 1) * 4, "curved": 5 + 4}


def test_a_solve_ends_at_the_first_check_without_improvement_and_goes_back_to_the_best():
    """On a bowl with steps of 0.5, w = 1 goes 0.5, 0, -0.4 ..: the loss falls until step 2 and then rises."""
    log = []
    params = {"w": torch.tensor([1.0, 0.0, 0.0])}

    def solve(steps, checks):
        optimizer = GaussNewton(whole(0.5), steps, GeometricSearch(trials=1, microbatches=2), checks=checks)
        return optimizer, optimizer.step(bowl(log), params, optimizer.init(params), batch(steps + 2))

    _, (expected, state, _) = solve(2, ())
    log.clear()
    adaptive, (found, kept, metrics) = solve(8, (1, 2, 4))
    assert adaptive.cost.passes == 8 + 4 + 1
    assert metrics["gn/inner_steps"].item() == 2
    assert [tokens for region, tokens in log if region == "curved"][:4] == [0, 1, 2, 3]  # the check at 4 ends it
    assert sum(1 for region, _ in log if region == "curved") == 4 + 2
    assert {tokens for region, tokens in log if region == "value"} == {8, 9}
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(trees.list_tensors(kept), trees.list_tensors(state))
    _, (_, _, metrics) = solve(2, (1,))
    assert metrics["gn/inner_steps"].item() == 2


def test_a_loss_that_is_not_finite_ends_a_solve():
    objective = bowl()._replace(value=lambda params, tokens: torch.where(params["w"] == 1, 0.0, torch.nan).sum())
    params = {"w": torch.ones(3)}
    optimizer = GaussNewton(whole(), 4, GeometricSearch(trials=1, microbatches=1), checks=(2,))
    found, _, metrics = optimizer.step(objective, params, optimizer.init(params), batch(5))
    assert torch.equal(found["w"], params["w"])
    assert "gn/inner_steps" not in metrics


def test_the_search_takes_the_best_trial():
    optimizer = solver(GeometricSearch(trials=5, microbatches=1), inner_steps=1)
    params = {"w": torch.tensor([1.0, 0.0, 0.0])}
    found = optimizer.search(
        bowl(), bowl().build_model(params), params, {"w": torch.tensor([-1.0, 0.0, 0.0])}, batch(1), {}
    )
    assert found.metrics["gn/alpha"].item() == pytest.approx(0.5)
    torch.testing.assert_close(found.params["w"], torch.zeros(3), atol=1e-6, rtol=0)
    assert found.metrics["gn/gain_ratio"].item() == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [2.0, torch.inf, torch.nan])
def test_a_direction_that_does_not_help_is_refused_and_the_next_solve_starts_at_the_anchor(bad):
    anchor, point = {"w": torch.zeros(3)}, {"w": torch.full((3,), bad)}
    found = GeometricSearch(trials=5, microbatches=2)(bowl(), bowl().build_model(anchor), anchor, point, batch(2), {})
    assert found.metrics["gn/alpha"].item() == 0
    assert torch.equal(found.params["w"], anchor["w"])
    assert not found.accepted


def test_a_refused_step_leaves_the_iterate_and_the_next_solve_starts_there():
    optimizer = solver(GeometricSearch(trials=2, microbatches=1), inner_steps=1, rate=torch.inf)
    params = {"w": torch.ones(3)}
    new, state, metrics = optimizer.step(bowl(), params, optimizer.init(params), batch(2))
    assert metrics["gn/alpha"].item() == 0
    assert torch.equal(new["w"], params["w"])
    assert torch.equal(state.point["w"], params["w"])


def test_the_search_goes_towards_the_mean_of_the_last_iterates():
    alone, mean = (GaussNewton(whole(), 4, FullStep(), average=average_last(part)) for part in (0.0, 0.5))
    params = {"w": torch.ones(3)}
    end, state, _ = alone.step(bowl(), params, alone.init(params), batch(4))
    earlier = GaussNewton(whole(), 3, FullStep())
    before, _, _ = earlier.step(bowl(), params, earlier.init(params), batch(3))
    averaged, averaged_state, _ = mean.step(bowl(), params, mean.init(params), batch(4))
    torch.testing.assert_close(averaged["w"], (end["w"] + before["w"]) / 2)
    torch.testing.assert_close(averaged_state.point["w"], state.point["w"])


def test_a_mean_that_fades_is_a_moving_average_without_its_bias():
    params, decay = {"w": torch.ones(3)}, 0.7
    iterates = []
    for steps in range(1, 6):
        optimizer = GaussNewton(whole(), steps, FullStep())
        iterates.append(optimizer.step(bowl(), params, optimizer.init(params), batch(steps))[0]["w"].double())
    moving = torch.zeros(3, dtype=torch.float64)
    for iterate in iterates:
        moving = decay * moving + (1 - decay) * iterate
    optimizer = GaussNewton(whole(), 5, FullStep(), average=fade(decay))
    found, state, _ = optimizer.step(bowl(), params, optimizer.init(params), batch(5))
    torch.testing.assert_close(found["w"].double(), moving / (1 - decay**5))
    torch.testing.assert_close(state.point["w"].double(), iterates[-1])


@pytest.mark.parametrize("search", [GeometricSearch(3, 2, fresh=False), BracketSearch(2, fresh=False)])
def test_a_search_that_is_not_fresh_decides_on_the_last_microbatches_of_the_solve(search):
    log = []
    optimizer = GaussNewton(whole(), 5, search)
    assert (optimizer.cost.solve, optimizer.cost.search, optimizer.cost.passes) == (5, 0, 6)
    params = {"w": torch.ones(3)}
    optimizer.step(bowl(log), params, optimizer.init(params), batch(5))
    assert [tokens for region, tokens in log if region == "curved"][:5] == [0, 1, 2, 3, 4]
    assert {tokens for region, tokens in log if region == "value"} == {3, 4}


@pytest.mark.parametrize("reset", [False, True])
def test_the_inner_state_goes_on_or_begins_anew_with_each_solve(reset):
    params = {"w": torch.ones(3)}
    optimizer = GaussNewton(whole(), 3, FullStep(), warm_start=False, reset=reset)
    once, state, _ = optimizer.step(bowl(), params, optimizer.init(params), batch(3))
    again, later, _ = optimizer.step(bowl(), params, state, batch(3))
    assert later.inner["all"].updates.item() == (3 if reset else 6)
    assert torch.equal(again["w"], once["w"]) == reset


def test_with_damping_a_first_order_solve_ends_at_the_damped_minimum():
    anchor, damping = {"w": torch.tensor([1.0, 1.0, 1.0])}, 50.0
    optimizer = GaussNewton(whole(0.02), 400, FullStep(), average=average_last(0.5), damping=damping)
    found, state, metrics = optimizer.step(bowl(), anchor, optimizer.init(anchor), batch(400))
    expected = damping / (SCALES.square() + damping)
    torch.testing.assert_close(found["w"], expected, rtol=1e-2, atol=1e-3)
    assert metrics["gn/damping"].item() == damping
    assert state.memory["gn/damping"].item() == pytest.approx(damping / 1.5)


def test_the_next_solve_starts_from_the_point_before_the_search():
    optimizer = solver(GeometricSearch(trials=5, microbatches=1), inner_steps=1, rate=2.0)
    params = {"w": torch.tensor([1.0, 1.0, 1.0])}
    new, state, metrics = optimizer.step(bowl(), params, optimizer.init(params), batch(2))
    assert 0 < metrics["gn/alpha"].item() < 1
    torch.testing.assert_close(state.point["w"], torch.full((3,), -1.0))
    assert not torch.equal(new["w"], state.point["w"])
    assert state.inner["all"].updates.item() == 1


def test_without_warm_start_the_solve_starts_from_the_iterate():
    params, elsewhere = {"w": torch.ones(3)}, {"w": torch.full((3,), 50.0)}
    for warm, begins in ((True, 50.0), (False, 1.0)):
        optimizer = solver(FullStep(), inner_steps=1, warm_start=warm)
        state = optimizer.init(params)._replace(point=elsewhere)
        new, _, _ = optimizer.step(bowl(), params, state, batch(1))
        assert new["w"][0].item() == pytest.approx(begins - 0.1, abs=1e-5)


def test_the_gain_ratio_compares_the_loss_with_its_model():
    loss, anchor = bowl(barrier=-5.0), {"w": torch.ones(3)}
    found = GeometricSearch(trials=1, microbatches=1)(
        loss, loss.build_model(anchor), anchor, {"w": torch.zeros(3)}, batch(1), {}
    )
    model_decrease = 0.5 * SCALES.square().sum() - 15.0
    assert found.metrics["gn/actual_decrease"].item() == pytest.approx(model_decrease.item())
    assert found.metrics["gn/gain_ratio"].item() == pytest.approx(1.0)


def test_it_descends_an_ill_conditioned_bowl_monotonically():
    optimizer = solver(GeometricSearch(trials=8, microbatches=1))
    params = {"w": torch.ones(3)}
    state, losses = optimizer.init(params), []
    for _ in range(10):
        params, state, metrics = optimizer.step(bowl(), params, state, batch(31))
        losses.append(metrics["loss/train"].item())
    assert all(later <= earlier for earlier, later in pairwise(losses))
    assert losses[-1] < 0.05 * losses[0]


def test_the_step_leaves_the_given_params_unwritten():
    optimizer = solver(GeometricSearch(trials=2, microbatches=1), inner_steps=3)
    params = {"w": torch.ones(3)}
    kept = trees.clone(params)
    optimizer.step(bowl(), params, optimizer.init(params), batch(4))
    assert torch.equal(params["w"], kept["w"])


@pytest.mark.parametrize("search", [FullStep(), GeometricSearch(2, 1), BracketSearch(1), Decrement()])
@pytest.mark.parametrize("options", [{}, {"warm_start": False}, {"average": average_last(0.7)}, {"carry": 0.5}])
def test_the_params_of_curved_never_share_storage_with_the_anchor(search, options):
    """One that did would compile `curved` a second time; the point of a solve moves on, so no later call would."""
    asked = []

    def noted(params, anchor, tokens):
        asked.append(params["w"].untyped_storage().data_ptr() == anchor["w"].untyped_storage().data_ptr())
        return bowl().curved(params, anchor, tokens)

    def product(direction, anchor, tokens):
        return {"w": SCALES.square() * direction["w"]}

    optimizer = GaussNewton(whole(), 3, search, **options)
    params = {"w": torch.ones(3)}
    state = optimizer.init(params)
    for _ in range(3):
        params, state, _ = optimizer.step(
            bowl()._replace(curved=noted, product=product), params, state, batch(optimizer.microbatches)
        )
    assert len(asked) > 9
    assert not any(asked)


def test_a_step_leaves_the_numbers_that_it_was_given_as_they_were():
    optimizer = GaussNewton(whole(), 4, GeometricSearch(2, 1), average=average_last(0.7))
    params = {"w": torch.ones(3)}
    _, state, _ = optimizer.step(bowl(), params, optimizer.init(params), batch(5))
    before = trees.clone((params, state))
    optimizer.step(bowl(), params, state, batch(5))
    torch.testing.assert_close((params, state), before, rtol=0, atol=0)
