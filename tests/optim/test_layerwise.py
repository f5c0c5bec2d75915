"""Layerwise Gauss-Newton: every block from the same anchor, on the same micro-batches, blind to the others."""

import pytest
import torch

from gnflow import trees
from gnflow.objective import Objective
from gnflow.optim import adamw
from gnflow.optim.averages import average_last
from gnflow.optim.descent import Descent
from gnflow.optim.gauss_newton import Block, GaussNewton
from gnflow.optim.search import FullStep, GeometricSearch
from gnflow.optim.stacks import Stacks

SHAPES = {"a.w": (3,), "a.v": (2,), "b.w": (4,)}
SCALES = {name: 1.0 + torch.arange(float(size)) for name, (size,) in SHAPES.items()}
PARTS = {"a": ("a.w", "a.v"), "b": ("b.w",)}
WHOLE = {"all": tuple(SHAPES)}


def bowl(coupling=0.0, log=None):
    """sum |scales w|^2 / 2 + coupling (sum of all w)^2 / 2, drawn towards the first token; its model is itself."""

    def loss(params, tokens):
        target = tokens.flatten()[0] / 10
        apart = sum((SCALES[name] * (params[name] - target)).square().sum() for name in SHAPES)
        return 0.5 * apart + 0.5 * coupling * sum(w.sum() for w in params.values()).square()

    def curved(params, anchor, tokens):
        if log is not None:
            log.append((tuple(params), int(tokens.flatten()[0])))
        model = lambda part: loss({**anchor, **part}, tokens)  # noqa: E731
        return torch.func.grad_and_value(model)(params)

    return Objective(loss, torch.func.grad_and_value(loss), curved)


def descent(names, rate=0.1, microbatches=1):
    stacks = Stacks.by_rule(dict.fromkeys(names, "adamw"), {name: SHAPES[name] for name in names})
    return Descent(adamw(rate), stacks, microbatches)


def solver(parts, inner_steps=5, search=None, **options):
    blocks = {name: Block(names, descent(names)) for name, names in parts.items()}
    return GaussNewton(blocks, inner_steps, search or FullStep(), **options)


def start():
    return {name: torch.linspace(-1, 1, size) for name, (size,) in SHAPES.items()}


def batch(microbatches):
    return torch.arange(microbatches).view(-1, 1, 1).expand(-1, 2, 3)


def steps(optimizer, objective, count=3):
    params = start()
    state = optimizer.init(params)
    for _ in range(count):
        params, state, metrics = optimizer.step(objective, params, state, batch(optimizer.microbatches))
    return params, state, metrics


def test_with_one_block_it_is_the_inner_optimizer_on_the_whole_model():
    inner, objective, point = descent(tuple(SHAPES)), bowl(coupling=1.0), start()
    anchor, state = start(), inner.init(start())
    params, solved, metrics = steps(solver(WHOLE), objective)
    for _ in range(3):
        for tokens in batch(5):
            point, state, seen = inner.step(objective.build_model(anchor), point, state, tokens[None])
        anchor = point
    assert all(torch.equal(params[name], anchor[name]) for name in SHAPES)
    assert torch.equal(metrics["gn/model_loss"], seen["loss/train"])
    expected = trees.name_tensors(state)
    assert all(torch.equal(t, expected[key]) for key, t in trees.name_tensors(solved.inner["all"]).items())


@pytest.mark.parametrize("options", [{}, {"average": average_last(0.5)}, {"warm_start": False}])
@pytest.mark.parametrize("search", [FullStep(), GeometricSearch(trials=3, microbatches=2)])
def test_where_the_loss_is_a_sum_over_blocks_it_is_the_full_solve(search, options):
    apart, state, _ = steps(solver(PARTS, search=search, **options), bowl())
    together, expected, _ = steps(solver(WHOLE, search=search, **options), bowl())
    torch.testing.assert_close(apart, together)
    torch.testing.assert_close(state.point, expected.point)


def test_where_blocks_interact_it_is_not():
    apart, _, _ = steps(solver(PARTS), bowl(coupling=1.0))
    together, _, _ = steps(solver(WHOLE), bowl(coupling=1.0))
    assert not torch.allclose(apart["a.w"], together["a.w"], atol=1e-3)


def test_a_block_does_not_see_the_displacement_of_another():
    optimizer, params = solver(PARTS), start()
    state = optimizer.init(params)
    elsewhere = {**state.point, "b.w": state.point["b.w"] + 50.0}
    here, solved, _ = optimizer.step(bowl(coupling=1.0), params, state, batch(5))
    there, moved, _ = optimizer.step(bowl(coupling=1.0), params, state._replace(point=elsewhere), batch(5))
    assert all(torch.equal(here[name], there[name]) for name in PARTS["a"])
    assert not torch.equal(here["b.w"], there["b.w"])
    assert torch.equal(solved.inner["a"].second["adamw:vectors"], moved.inner["a"].second["adamw:vectors"])


def test_every_block_sees_every_microbatch_of_the_solve():
    log = []
    optimizer = solver(PARTS, search=GeometricSearch(trials=3, microbatches=2))
    cost = optimizer.cost
    assert (cost.solve, cost.search, cost.passes) == (5, 2, 6)
    steps(optimizer, bowl(log=log), 1)
    solve = {names: [token for asked, token in log if asked == names] for names in (*PARTS.values(), tuple(SHAPES))}
    assert list(solve.values()) == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [5, 6]]


def test_after_a_refused_step_every_block_starts_at_the_anchor():
    blocks = {name: Block(names, descent(names, rate=torch.inf)) for name, names in PARTS.items()}
    optimizer = GaussNewton(blocks, 1, GeometricSearch(trials=2, microbatches=1))
    params, state, metrics = steps(optimizer, bowl(), 1)
    assert metrics["gn/alpha"].item() == 0
    assert all(torch.equal(state.point[name], params[name]) for name in SHAPES)


def test_the_recorded_model_loss_is_the_mean_over_blocks():
    objective, params = bowl(coupling=1.0), start()
    _, _, metrics = steps(solver(PARTS, inner_steps=1), objective, 1)
    torch.testing.assert_close(metrics["gn/model_loss"], objective.value(params, batch(1)[0]))


def test_blocks_that_take_different_numbers_of_microbatches_are_refused():
    blocks = {name: Block(names, descent(names, microbatches=i)) for i, (name, names) in enumerate(PARTS.items(), 1)}
    with pytest.raises(ValueError, match="same number of micro-batches"):
        GaussNewton(blocks, 1, FullStep())
