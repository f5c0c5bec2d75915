from math import sqrt

import pytest
import torch
from problems import noise
from pytorch_optimizer import NorMuon

from gnflow.optim import muon, normuon
from gnflow.optim.newton_schulz import orthogonalise

SHAPES = {"square": (12, 12), "wide": (6, 20), "tall": (20, 6)}


def drawn(seed=0):
    return noise({name: torch.empty(shape, dtype=torch.float64) for name, shape in SHAPES.items()}, seed)


def updates_of(transform, steps=6):
    params = drawn()
    state, found = transform.init(params), []
    for step in range(steps):
        updates, state = transform.update(drawn(step + 1), state, params)
        found.append(updates)
    return found, state


@pytest.mark.parametrize("nesterov", [True, False])
def test_updates_follow_the_formula(nesterov):
    found, state = updates_of(normuon(0.5, 0.9, 0.8, 1e-6, nesterov, 0.3, scale="original"))
    params, average, second = drawn(), {}, {}
    for step, updates in enumerate(found):
        for name, g in drawn(step + 1).items():
            average[name] = 0.9 * average.get(name, 0) + 0.1 * g
            followed = 0.1 * g + 0.9 * average[name] if nesterov else average[name]
            factor = orthogonalise({name: followed}, coefficients="polar_express")[name]
            second[name] = 0.8 * second.get(name, 0) + 0.2 * factor.square().mean(1, keepdim=True)
            divided = factor / (second[name].sqrt() + 1e-6)
            m, n = g.shape
            direction = sqrt(max(1, m / n)) * divided * factor.norm() / divided.norm()
            expected = -0.5 * (direction + 0.3 * params[name])
            torch.testing.assert_close(updates[name], expected, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(state.second, second)


def test_updates_point_where_the_published_ones_point():
    """Up to the bfloat16 of its iteration."""
    params = drawn()
    weights = {name: torch.nn.Parameter(w.float()) for name, w in params.items()}
    group = {"params": list(weights.values()), "lr": 1.0, "use_muon": True, "weight_decay": 0.0}
    reference = NorMuon([group], beta2=0.9)
    found, _ = updates_of(normuon(1.0, second_beta=0.9, coefficients="jordan", weight_decay=0.0, scale="original"))
    for step, updates in enumerate(found):
        before = {name: p.detach().clone() for name, p in weights.items()}
        for name, p in weights.items():
            p.grad = drawn(step + 1)[name].float()
        reference.step()
        for name, p in weights.items():
            moved = p.detach() - before[name]
            assert (moved - updates[name].float()).norm() < 0.05 * moved.norm(), (name, step)


def test_its_first_update_has_rows_of_one_norm_and_the_size_of_muons():
    """By default as Dion has it: `spectral`, Polar Express."""
    [ours], state = updates_of(normuon(1.0, weight_decay=0.0), 1)
    [muons], _ = updates_of(muon(1.0, scale="spectral", coefficients="polar_express"), 1)
    for name, u in ours.items():
        norms = torch.linalg.vector_norm(u, dim=1)
        torch.testing.assert_close(norms, norms.mean().expand_as(norms), atol=0, rtol=1e-5)
        torch.testing.assert_close(u.norm(), muons[name].norm())
        assert state.second[name].shape == (len(u), 1)


def test_a_split_weight_is_each_of_its_parts_alone():
    weight, gradient = noise({"w": torch.empty(2, 18, 5), "g": torch.empty(2, 18, 5)}, 4).values()
    fused, alone = normuon(0.1, split=3), normuon(0.1)
    updates, state = fused.update({"w": gradient}, fused.init({"w": weight}), {"w": weight})
    assert state.second["w"].shape == (2, 18, 1)
    for i in range(2):
        for part in range(3):
            at = (i, slice(part * 6, part * 6 + 6))
            own = {"w": weight[at]}
            expected, _ = alone.update({"w": gradient[at]}, alone.init(own), own)
            torch.testing.assert_close(updates["w"][at], expected["w"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("option", "value"), [("scale", "match"), ("coefficients", "polar"), ("dtype", "half")])
def test_a_misspelt_option_is_refused(option, value):
    with pytest.raises(ValueError, match=f"normuon's {option} is .*, not `{value}`"):
        normuon(**{option: value})
