import multimodal
import pytest
import torch
from multimodal import KINDS, weights_and_choice
from oracles import Dense
from problems import build, noise

from gnflow import trees
from gnflow.curvature.linearised import SURROGATES
from gnflow.models.modality import keep_modality


def setting(kind, objective, tokens=None):
    problem = multimodal.small(kind)
    if tokens is not None:
        problem = problem._replace(tokens=tokens)
    return problem, build(problem.model, objective).curved, Dense(problem, *weights_and_choice(kind, problem.tokens))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", SURROGATES)
def test_gradient_and_value_equal_the_dense_model_with_its_weights_and_mask(objective, kind):
    problem, curved, dense = setting(kind, objective)
    params = trees.move_along(problem.params, noise(problem.params, 7), 0.3)
    gradient, value = curved(params, problem.params, problem.tokens)
    expected_gradient, expected_value = getattr(dense, objective)(params)
    torch.testing.assert_close(dense.flat(gradient), expected_gradient, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(value, expected_value, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", SURROGATES)
def test_of_a_block_it_is_the_dense_model_with_all_else_at_the_anchor(objective, kind):
    problem, curved, dense = setting(kind, objective)
    moved = trees.move_along(problem.params, noise(problem.params, 7), 0.3)
    for names in problem.model.blocks.values():
        block = trees.pick(moved, names)
        gradient, value = curved(block, problem.params, problem.tokens)
        expected_gradient, expected_value = getattr(dense, objective)({**problem.params, **block})
        assert list(gradient) == list(names)
        expected = trees.pick(dense.tree(expected_gradient), names)
        torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(value, expected_value, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modality", ["text", "image"])
def test_the_model_of_one_modality_is_the_dense_one_of_its_targets(modality, kind):
    tokens = keep_modality(multimodal.tokens(kind, 4), modality)
    problem, curved, dense = setting(kind, "quadratic", tokens)
    params = trees.move_along(problem.params, noise(problem.params, 7), 0.3)
    gradient, value = curved(params, problem.params, problem.tokens)
    expected_gradient, expected_value = dense.quadratic(params)
    torch.testing.assert_close(dense.flat(gradient), expected_gradient, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(value, expected_value, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_curvature_product_is_symmetric_and_positive(kind):
    problem, curved, _ = setting(kind, "quadratic")
    origin, _ = curved(trees.clone(problem.params), problem.params, problem.tokens)

    def product(v):
        at, _ = curved(trees.add(problem.params, v), problem.params, problem.tokens)
        return trees.subtract(at, origin)

    a, b = noise(problem.params, 1), noise(problem.params, 2)
    torch.testing.assert_close(trees.dot(a, product(b)), trees.dot(b, product(a)), rtol=1e-9, atol=1e-12)
    assert trees.dot(a, product(a)) > 0
