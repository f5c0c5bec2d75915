from math import sqrt

import pytest
import torch
from problems import noise
from updates import follow

from gnflow.optim import muon, soap_muon
from gnflow.optim.newton_schulz import orthogonalise

SHAPES = {"a": (6, 6), "b": (9, 9)}


def drawn(step):
    return noise({name: torch.empty(size, dtype=torch.float64) for name, size in SHAPES.items()}, 70 + step)


@pytest.mark.parametrize("nesterov", [True, False])
def test_updates_follow_the_formula(nesterov):
    """In the first basis, which is never renewed here."""
    transform = soap_muon(
        0.5, 0.9, 0.8, 0.7, 1e-3, nesterov, 0.3, precondition_frequency=99, scale="match_rms", coefficients="jordan"
    )
    updates, states = follow(transform, 6, drawn)
    for name, start in drawn(-1).items():
        average, second = torch.zeros_like(start), torch.zeros_like(start)
        factors = torch.zeros_like(start), torch.zeros_like(start)
        for step, state in enumerate(states):
            g = drawn(step)[name]
            average = 0.9 * average + 0.1 * g
            ahead = 0.1 * g + 0.9 * average if nesterov else average
            if step:
                left, right = state.left_basis[name], state.right_basis[name]
                x = left.T @ ahead @ right
                second = 0.8 * second + 0.2 * x**2
                factor = orthogonalise({name: left @ (x / (second.sqrt() + 1e-3)) @ right.T})[name]
                expected = -0.5 * (0.2 * sqrt(len(g)) * factor + 0.3 * start)
                torch.testing.assert_close(updates[step][name], expected, atol=1e-8, rtol=1e-6)
                torch.testing.assert_close(state.second[name], second)
            factors = 0.7 * factors[0] + 0.3 * g @ g.T, 0.7 * factors[1] + 0.3 * g.T @ g
            torch.testing.assert_close((state.left[name], state.right[name]), factors)


def test_a_renewal_turns_the_bases_and_permutes_the_second_moment_along():
    transform = soap_muon(precondition_frequency=4)
    _, states = follow(transform, 5, drawn)
    after = transform.refresh(drawn(5), states[-1])
    for name in SHAPES:
        old, new = states[-1].second[name], after.second[name]
        assert not torch.equal(old, new)
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
        basis = after.left_basis[name]
        torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis), dtype=torch.float64))
        assert not torch.equal(basis, states[-1].left_basis[name])
    assert after.momentum is states[-1].momentum


def test_it_is_renewed_at_every_update_by_default_and_else_when_it_is_due():
    for frequency, expected in ((1, [1, 2, 3, 4, 5]), (2, [1, 3, 5])):
        transform = soap_muon(precondition_frequency=frequency)
        assert transform.period == frequency
        _, states = follow(transform, 6, drawn)
        due = [step for step in range(1, 6) if states[step].left_basis["a"] is not states[step - 1].left_basis["a"]]
        assert due == expected


def test_without_any_basis_it_is_muon_whose_momentum_is_divided_by_its_own_second_moment():
    updates, states = follow(soap_muon(1.0, max_precondition_dim=1, coefficients="jordan", eps=1e-12), 3, drawn)
    assert states[-1].left == states[-1].right == {}
    plain = muon(1.0, nesterov=False, momentum=0.0)
    for step in (1, 2):
        ahead = states[step].momentum["a"] * 0.95 + 0.05 * drawn(step)["a"]
        white = {"a": ahead / (states[step].second["a"].sqrt() + 1e-12)}
        expected, _ = plain.update(white, plain.init(white), drawn(-1))
        torch.testing.assert_close(updates[step]["a"], expected["a"], atol=1e-9, rtol=1e-7)


def test_the_first_call_moves_nothing_and_fills_momentum_and_factors():
    updates, [state] = follow(soap_muon(0.1, weight_decay=0.5), 1, drawn)
    assert not any(u.any() for u in updates[0].values())
    assert not any(v.any() for v in state.second.values())
    torch.testing.assert_close(state.momentum["a"], 0.05 * drawn(0)["a"])
    torch.testing.assert_close(state.left["a"], 0.1 * drawn(0)["a"] @ drawn(0)["a"].T)


def test_the_momentum_it_shows_is_what_the_next_update_whitens():
    transform = soap_muon(momentum=0.8)
    _, states = follow(transform, 3, drawn)
    shown = transform.momentum(drawn(3), states[-1])
    _, after = transform.update(drawn(3), states[-1], drawn(-1))
    for name, g in drawn(3).items():
        torch.testing.assert_close(shown[name], 0.2 * g + 0.8 * after.momentum[name])
