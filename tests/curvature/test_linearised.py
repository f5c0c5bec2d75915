import pytest
import torch
from oracles import Dense
from problems import VARIANTS, build, noise, small

from gnflow import trees
from gnflow.curvature.linearised import SURROGATES
from gnflow.models.loss import compute_cross_entropy, split


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("objective", SURROGATES)
def test_gradient_and_value_equal_the_dense_model(objective, variant):
    problem = small(variant)
    params = trees.move_along(problem.params, noise(problem.params, 7), 0.3)
    gradient, value = build(problem.model, objective).curved(params, problem.params, problem.tokens)
    dense = Dense(problem)
    expected_gradient, expected_value = getattr(dense, objective)(params)
    torch.testing.assert_close(dense.flat(gradient), expected_gradient, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(value, expected_value, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("seed", [1, 2])
def test_whitened_it_is_least_squares_between_the_tangent_and_so_many_times_the_error_as_there_are_words(seed):
    problem = small(seed=seed)
    params, tokens = trees.move_along(problem.params, noise(problem.params, seed), 0.3), problem.tokens
    curved = build(problem.model, "whitened").curved
    gradient, value = curved(params, problem.params, tokens)
    _, touching = curved(trees.clone(problem.params), problem.params, tokens)
    dense, n = Dense(problem), tokens[:, 1:].numel()
    target = torch.nn.functional.one_hot(dense.targets, dense.vocabulary).double().flatten()
    error = dense.logits.view(n, -1).softmax(-1).flatten() - target
    words = dense.vocabulary
    fit = dense.jacobian @ (dense.flat(params) - dense.anchor) + words * error
    torch.testing.assert_close(dense.flat(gradient), dense.jacobian.T @ fit / (words * n), atol=1e-10, rtol=1e-10)
    least = (fit @ fit - words**2 * error @ error) / (2 * words * n)
    torch.testing.assert_close(value - touching, least, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("variant", ["default", "tied"])
@pytest.mark.parametrize("objective", SURROGATES)
def test_of_a_block_it_is_the_dense_model_with_all_else_at_the_anchor(objective, variant):
    problem = small(variant)
    curved, dense = build(problem.model, objective).curved, Dense(problem)
    moved = trees.move_along(problem.params, noise(problem.params, 7), 0.3)
    for names in problem.model.blocks.values():
        block = trees.pick(moved, names)
        gradient, value = curved(block, problem.params, problem.tokens)
        expected_gradient, expected_value = getattr(dense, objective)({**problem.params, **block})
        assert list(gradient) == list(names)
        expected = trees.pick(dense.tree(expected_gradient), names)
        torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(value, expected_value, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("objective", SURROGATES)
def test_at_the_anchor_it_is_the_loss_itself(objective):
    problem = small()

    def loss(params):
        inputs, targets = split(problem.tokens)
        return compute_cross_entropy(problem.model.compute_logits(params, inputs), targets)

    gradient, value = build(problem.model, objective).curved(
        trees.clone(problem.params), problem.params, problem.tokens
    )
    expected, loss_value = torch.func.grad_and_value(loss)(problem.params)
    torch.testing.assert_close(value, loss_value)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-10)


def test_the_curvature_product_is_symmetric_and_positive():
    problem = small()
    curved = build(problem.model).curved

    def product(v):
        at, _ = curved(trees.add(problem.params, v), problem.params, problem.tokens)
        origin, _ = curved(trees.clone(problem.params), problem.params, problem.tokens)
        return trees.subtract(at, origin)

    a, b = noise(problem.params, 1), noise(problem.params, 2)
    torch.testing.assert_close(trees.dot(a, product(b)), trees.dot(b, product(a)), rtol=1e-9, atol=1e-12)
    assert trees.dot(a, product(a)) > 0


def test_the_prox_linear_model_is_convex_along_a_line():
    problem = small()
    curved = build(problem.model, "prox_linear").curved
    direction = noise(problem.params, 3)
    values = torch.stack(
        [
            curved(trees.move_along(problem.params, direction, t), problem.params, problem.tokens)[1]
            for t in (-1.0, 0.0, 1.0)
        ]
    )
    assert values[0] + values[2] > 2 * values[1]
