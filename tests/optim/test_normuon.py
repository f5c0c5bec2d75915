from math import sqrt

import pytest
import torch
from pytorch_optimizer import NorMuon
from updates import draw, follow

from gnflow.optim import muon, normuon
from gnflow.optim.newton_schulz import orthogonalise


@pytest.mark.parametrize("nesterov", [True, False])
def test_updates_follow_the_formula(nesterov):
    found, states = follow(normuon(0.5, 0.9, 0.8, 1e-6, nesterov, 0.3, scale="original"))
    params, average, second = draw(), {}, {}
    for step, updates in enumerate(found):
        for name, g in draw(step).items():
            average[name] = 0.9 * average.get(name, 0) + 0.1 * g
            followed = 0.1 * g + 0.9 * average[name] if nesterov else average[name]
            factor = orthogonalise({name: followed}, coefficients="polar_express")[name]
            second[name] = 0.8 * second.get(name, 0) + 0.2 * factor.square().mean(1, keepdim=True)
            divided = factor / (second[name].sqrt() + 1e-6)
            m, n = g.shape
            direction = sqrt(max(1, m / n)) * divided * factor.norm() / divided.norm()
            expected = -0.5 * (direction + 0.3 * params[name])
            torch.testing.assert_close(updates[name], expected, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(states[-1].second, second)


def test_updates_point_where_the_published_ones_point():
    """Up to the bfloat16 of its iteration."""
    weights = {name: torch.nn.Parameter(w.float()) for name, w in draw().items()}
    group = {"params": list(weights.values()), "lr": 1.0, "use_muon": True, "weight_decay": 0.0}
    reference = NorMuon([group], beta2=0.9)
    found, _ = follow(normuon(1.0, second_beta=0.9, coefficients="jordan", weight_decay=0.0, scale="original"))
    for step, updates in enumerate(found):
        before = {name: p.detach().clone() for name, p in weights.items()}
        for name, p in weights.items():
            p.grad = draw(step)[name].float()
        reference.step()
        for name, p in weights.items():
            moved = p.detach() - before[name]
            assert (moved - updates[name].float()).norm() < 0.05 * moved.norm(), (name, step)


def test_its_first_update_has_rows_of_one_norm_and_the_size_of_muons():
    """By default as Dion has it: `spectral`, Polar Express."""
    [ours], [state] = follow(normuon(1.0, weight_decay=0.0), 1)
    [muons], _ = follow(muon(1.0, scale="spectral", coefficients="polar_express"), 1)
    for name, u in ours.items():
        norms = torch.linalg.vector_norm(u, dim=1)
        torch.testing.assert_close(norms, norms.mean().expand_as(norms), atol=0, rtol=1e-5)
        torch.testing.assert_close(u.norm(), muons[name].norm())
        assert state.second[name].shape == (len(u), 1)
