import pytest
import torch
from oracles import Dense
from problems import VARIANTS, noise, small

from gnflow import trees
from gnflow.curvature.hessian import hessian
from gnflow.models.loss import cross_entropy, split


def value_of(problem):
    def value(params, tokens):
        inputs, targets = split(tokens)
        return cross_entropy(problem.model.logits(params, inputs), targets)

    return value


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_dense_hessian_times_the_direction(variant):
    problem = small(variant)
    dense, direction = Dense(problem), noise(problem.params, 3)
    found = hessian(value_of(problem))(direction, problem.params, problem.tokens)
    expected = dense.hessian(problem) @ dense.flat(direction)
    torch.testing.assert_close(dense.flat(found), expected, atol=1e-11, rtol=1e-9)


def test_of_a_block_it_has_the_rows_and_columns_of_that_block():
    problem = small()
    dense, whole = Dense(problem), noise(problem.params, 3)
    matrix, product = dense.hessian(problem), hessian(value_of(problem))
    for names in problem.model.blocks.values():
        part = trees.pick(whole, names)
        found = product(part, problem.params, problem.tokens)
        assert list(found) == list(names)
        alone = dense.flat({**trees.zeros(whole), **part})
        expected = trees.pick(dense.tree(matrix @ alone), names)
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-9)
