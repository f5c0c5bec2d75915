import pytest
import torch
from oracles import Dense, orthogonal_signs
from problems import noise, small

from gnflow.curvature.energy import energies


@pytest.fixture(scope="module")
def problem():
    return small()


@pytest.fixture(scope="module")
def dense(problem):
    return Dense(problem)


def of_each_weight(dense, blocks):
    """The number of its block."""
    block = {name: float(i) for i, names in enumerate(blocks.values()) for name in names}
    return dense.flat({n: torch.full(s, block[n]) for n, s in zip(dense.names, dense.shapes, strict=True)})


def test_over_signs_that_span_everything_both_sums_are_exact(problem, dense):
    matrix, blocks = dense.curvature(), problem.model.blocks
    within, whole = energies(dense.operator(matrix), blocks, orthogonal_signs(dense))
    owner = of_each_weight(dense, blocks)
    same = owner[:, None] == owner
    torch.testing.assert_close(whole, matrix.square().sum(), rtol=1e-10, atol=0)
    torch.testing.assert_close(within, (matrix * same).square().sum(), rtol=1e-10, atol=0)
    assert 0.05 < within / whole < 0.95


def test_of_a_block_diagonal_matrix_any_probe_says_so(problem, dense):
    owner = of_each_weight(dense, problem.model.blocks)
    matrix = dense.curvature() * (owner[:, None] == owner)
    within, whole = energies(dense.operator(matrix), problem.model.blocks, [noise(problem.params, 1)])
    torch.testing.assert_close(within, whole, rtol=1e-12, atol=0)


def test_few_probes_are_never_outside_and_come_close(problem, dense):
    matrix, blocks = dense.curvature(), problem.model.blocks
    owner = of_each_weight(dense, blocks)
    expected = (matrix * (owner[:, None] == owner)).square().sum() / matrix.square().sum()
    signs = [{n: v.sign() for n, v in noise(problem.params, i).items()} for i in range(16)]
    within, whole = energies(dense.operator(matrix), blocks, signs)
    assert 0 <= within / whole <= 1
    assert within / whole == pytest.approx(expected.item(), abs=0.1)
