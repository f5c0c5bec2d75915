"""Gradients that say the same leave nothing to project."""

import pytest
import torch

from gnflow.optim.fisher_orthogonal import Projection, merge_pair


@pytest.mark.parametrize("second", [0.0, 1e-8, 0.5, 1.0, -2.0])
def test_parallel_gradients_are_merged_into_their_mean_and_have_no_coefficient(second):
    drawn = torch.Generator().manual_seed(0)
    one, f = torch.randn(4, 16, 16, generator=drawn), torch.rand(4, 16, 16, generator=drawn) + 0.1
    outcome = merge_pair({"w": one}, {"w": second * one}, torch.tensor(0.8), {"w": f}, Projection())
    torch.testing.assert_close(outcome.gradient["w"], (0.8 + 0.2 * second) * one)
    assert (outcome.beta, outcome.growth) == (0, 1)
