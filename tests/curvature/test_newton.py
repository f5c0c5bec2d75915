"""Newton's model against the Hessian of the loss written out in float64, by a path that shares nothing with it."""

import pytest
import torch
from oracles import Dense
from problems import VARIANTS, Problem, build, noise

from gnflow import trees
from gnflow.curvature.hessian import make_hessian_product
from gnflow.curvature.newton import expand
from gnflow.models.decoder import build_decoder
from gnflow.models.loss import compute_cross_entropy, split
from gnflow.spec.model import Decoder


def tiny(variant="default", seed=0):
    """Two layers of width 4 in float64, every weight moved off its initial value."""
    shape = {"layers": 2, "width": 4, "heads": 2, "hidden": 5, **VARIANTS[variant]}
    model = build_decoder(Decoder.model_validate(shape), 5, "plain")
    params = trees.move_along(model.init(seed), noise(model.init(seed), seed + 1), 0.3)
    tokens = torch.randint(5, (3, 5), generator=torch.Generator().manual_seed(seed))
    return Problem(model, trees.map_tensors(lambda w: w.double(), params), tokens)


def loss_of(model):
    def loss(params, tokens):
        inputs, targets = split(tokens)
        return compute_cross_entropy(model.compute_logits(params, inputs), targets)

    return loss


def second_derivatives(problem, dense):
    """(loss, gradient, Hessian) of the weights as one vector, by reverse mode twice."""

    def loss(flat):
        return dense.loss(problem.model.compute_logits(dense.tree(flat), problem.tokens[:, :-1]).flatten())

    slope = torch.func.grad(loss)
    return loss(dense.anchor), slope(dense.anchor), torch.func.jacrev(slope, chunk_size=64)(dense.anchor)


@pytest.mark.parametrize("variant", ["default", "tied", "swiglu"])
def test_gradient_value_and_product_are_those_of_the_hessian(variant):
    problem = tiny(variant)
    dense, params = Dense(problem), trees.move_along(problem.params, noise(problem.params, 7), 0.3)
    value, slope, matrix = second_derivatives(problem, dense)
    d = dense.flat(params) - dense.anchor
    found, at = expand(loss_of(problem.model))(params, problem.params, problem.tokens)
    torch.testing.assert_close(dense.flat(found), slope + matrix @ d, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(at, value + slope @ d + 0.5 * d @ matrix @ d, rtol=1e-10, atol=1e-11)
    image = make_hessian_product(loss_of(problem.model))(noise(problem.params, 3), problem.params, problem.tokens)
    torch.testing.assert_close(dense.flat(image), matrix @ dense.flat(noise(problem.params, 3)), rtol=1e-8, atol=1e-9)
    assert torch.linalg.eigvalsh(matrix)[0] < -1e-3


def test_of_a_block_it_is_that_block_of_the_hessian():
    problem = tiny()
    dense = Dense(problem)
    _, slope, matrix = second_derivatives(problem, dense)
    for names in problem.model.blocks.values():
        kept = torch.cat([torch.full((w.numel(),), name in names) for name, w in problem.params.items()])
        direction = trees.pick(noise(problem.params, 5), [name for name in problem.params if name in names])
        image = make_hessian_product(loss_of(problem.model))(direction, problem.params, problem.tokens)
        assert list(image) == list(direction)
        expected = matrix[kept][:, kept] @ trees.flatten(direction)
        torch.testing.assert_close(trees.flatten(image), expected, rtol=1e-8, atol=1e-9)
        moved = trees.add(trees.pick(problem.params, direction), direction)
        found, _ = expand(loss_of(problem.model))(moved, problem.params, problem.tokens)
        torch.testing.assert_close(trees.flatten(found), slope[kept] + expected, rtol=1e-8, atol=1e-9)


def test_where_the_logits_are_linear_it_is_the_gauss_newton_matrix():
    """Those of the head, all else fixed."""
    problem = tiny()
    direction = trees.pick(noise(problem.params, 2), ["head.weight"])
    newton = make_hessian_product(loss_of(problem.model))(direction, problem.params, problem.tokens)
    gauss_newton = build(problem.model).product(direction, problem.params, problem.tokens)
    torch.testing.assert_close(newton, gauss_newton, rtol=1e-9, atol=1e-12)
