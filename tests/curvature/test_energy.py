import pytest
import torch
from oracles import Dense, Symmetric
from problems import noise, small

from gnflow.curvature.energy import estimate_energies


def test_over_signs_that_span_everything_both_sums_are_exact():
    symmetric = Symmetric()
    within, whole = estimate_energies(symmetric, symmetric.blocks, symmetric.orthogonal_signs())
    torch.testing.assert_close(whole, symmetric.matrix.square().sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(within, (symmetric.matrix * symmetric.within).square().sum(), rtol=1e-12, atol=0)
    assert 0.2 < within / whole < 0.9


def test_of_a_block_diagonal_matrix_or_of_one_block_any_probe_says_so():
    symmetric = Symmetric()
    probe = [noise(symmetric.tree(symmetric.eigenvalues), 1)]
    within, whole = estimate_energies(symmetric, {"all": tuple(symmetric.shapes)}, probe)
    assert within == whole > 0
    symmetric.matrix = symmetric.matrix * symmetric.within
    within, whole = estimate_energies(symmetric, symmetric.blocks, probe)
    torch.testing.assert_close(within, whole, rtol=1e-12, atol=0)


def test_of_a_network_few_probes_come_close_and_no_share_is_above_one():
    problem = small()
    dense, blocks = Dense(problem), problem.model.blocks
    matrix = dense.curvature()
    number = {name: float(i) for i, names in enumerate(blocks.values()) for name in names}
    owner = dense.flat({name: torch.full_like(w, number[name]) for name, w in problem.params.items()})
    expected = (matrix * (owner[:, None] == owner)).square().sum() / matrix.square().sum()
    signs = [{name: v.sign() for name, v in noise(problem.params, i).items()} for i in range(16)]
    each = [within / whole for within, whole in (estimate_energies(dense.operator(matrix), blocks, [v]) for v in signs)]
    within, whole = estimate_energies(dense.operator(matrix), blocks, signs)
    assert all(0 < share < 1 for share in each)
    assert within / whole == pytest.approx(expected.item(), abs=0.1)
