import pytest
import torch
from oracles import Dense
from problems import VARIANTS, noise, small

from gnflow import trees
from gnflow.curvature.hessian import make_hessian_product
from gnflow.models.loss import compute_cross_entropy, split


def value_of(problem):
    def value(params, tokens):
        inputs, targets = split(tokens)
        return compute_cross_entropy(problem.model.compute_logits(params, inputs), targets)

    return value


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_reverse_over_reverse_and_of_a_block_has_its_rows(variant):
    problem = small(variant)
    params = {name: w.clone().requires_grad_() for name, w in problem.params.items()}
    slope = torch.autograd.grad(value_of(problem)(params, problem.tokens), list(params.values()), create_graph=True)
    product = make_hessian_product(value_of(problem))
    for names in (tuple(params), problem.model.blocks["blocks.0"]):
        direction = trees.pick(noise(problem.params, 3), names)
        along = sum((g * direction[name]).sum() for name, g in zip(params, slope, strict=True) if name in names)
        expected = torch.autograd.grad(along, [params[name] for name in names], retain_graph=True)
        found = product(direction, problem.params, problem.tokens)
        assert list(found) == list(names)
        torch.testing.assert_close(tuple(found.values()), expected, atol=1e-11, rtol=1e-9)


def test_it_is_the_dense_hessian_times_the_direction():
    problem = small()
    dense, direction = Dense(problem), noise(problem.params, 3)
    found = make_hessian_product(value_of(problem))(direction, problem.params, problem.tokens)
    expected = dense.hessian(problem) @ dense.flat(direction)
    torch.testing.assert_close(dense.flat(found), expected, atol=1e-11, rtol=1e-9)
