from math import sqrt

import pytest
import torch
from problems import noise
from pytorch_optimizer import SOAP

from gnflow.objective import Params
from gnflow.optim import soap
from gnflow.optim.eigenbasis import advance_basis, decompose_by_cholesky, decompose_by_householder, find_basis

# Square: a first gradient that is tall or wide leaves null spaces whose basis is anyone's.
SHAPES = {"a": (12, 12), "b": (9, 9), "v": (7,)}


def gradients(step, shapes=None, dtype=torch.float32):
    return noise({name: torch.empty(shape, dtype=dtype) for name, shape in (shapes or SHAPES).items()}, 100 + step)


def followed(transform, params, steps, given=gradients):
    """The params after each step, and the last state."""
    state, path = transform.init(params), []
    for step in range(steps):
        g = given(step)
        state = transform.refresh(g, state)
        updates, state = transform.update(g, state, params)
        params = {name: w + updates[name] for name, w in params.items()}
        path.append(params)
    return path, state


def reference(params, steps, given=gradients, **options):
    weights = {name: torch.nn.Parameter(w.clone()) for name, w in params.items()}
    optimizer = SOAP(list(weights.values()), lr=3e-3, **options)
    path = []
    for step in range(steps):
        for name, g in given(step).items():
            weights[name].grad = g.clone()
        optimizer.step()
        path.append({name: w.detach().clone() for name, w in weights.items()})
    return path


def assert_same(ours: list[Params], theirs: list[Params], atol):
    for a, b in zip(ours, theirs, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"precondition_frequency": 1}, {"precondition_frequency": 1}),
        ({"weight_decay": 0.5, "betas": (0.9, 0.99)}, {"weight_decay": 0.5, "betas": (0.9, 0.99)}),
        ({"shampoo_beta": 0.8}, {"shampoo_beta": 0.8}),
        ({"normalize_gradients": True}, {"normalize_gradient": True}),
        ({"max_precondition_dim": 10}, {"max_precondition_dim": 10}),
    ],
)
def test_soap_matches_its_reference_for_100_steps(options, theirs):
    start = gradients(-1)
    ours, _ = followed(soap(3e-3, **options), start, 100)
    assert_same(ours, reference(start, 100, **theirs), atol=1e-5)


def test_a_one_sided_matrix_matches_the_reference():
    def given(step):
        return gradients(step, {"wide": (6, 20)})

    start = given(-1)
    ours, state = followed(soap(3e-3, max_precondition_dim=8), start, 60, given)
    assert set(state.left) == {"wide"}
    assert not state.right
    assert_same(ours, reference(start, 60, given, max_precondition_dim=8), atol=1e-5)


def test_without_a_basis_it_is_adam_one_call_late():
    start = gradients(-1)
    ours, _ = followed(soap(3e-3, eps=1e-30, weight_decay=0.0, max_precondition_dim=1), start, 20)
    weights = {name: torch.nn.Parameter(w.clone()) for name, w in start.items()}
    adam = torch.optim.Adam(weights.values(), lr=3e-3, betas=(0.95, 0.95), eps=1e-30)
    for step in range(1, 20):
        for name, g in gradients(step).items():
            weights[name].grad = g.clone()
        adam.step()
        assert_same([ours[step]], [{name: w.detach() for name, w in weights.items()}], atol=1e-6)


def test_a_basis_never_renewed_is_adam_in_the_first_gradients_eigenbasis():
    first, start = gradients(0)["a"], gradients(-1)["a"]
    ours, _ = followed(
        soap(3e-3, eps=1e-12, weight_decay=0.0, precondition_frequency=1000),
        {"a": start}, 15, lambda step: {"a": gradients(step)["a"]},
    )  # fmt: skip
    u, _, vt = torch.linalg.svd(first.double())
    turned = torch.nn.Parameter(u.T @ start.double() @ vt.T)
    adam = torch.optim.Adam([turned], lr=3e-3, betas=(0.95, 0.95), eps=1e-12)
    for step in range(1, 15):
        turned.grad = u.T @ gradients(step)["a"].double() @ vt.T
        adam.step()
    torch.testing.assert_close(ours[-1]["a"].double(), u @ turned.detach() @ vt, atol=2e-5, rtol=0)


def test_the_first_call_moves_and_decays_nothing():
    start = gradients(-1)
    transform = soap(0.1, weight_decay=0.5)
    updates, state = transform.update(gradients(0), transform.init(start), start)
    assert all(not u.any() for u in updates.values())
    assert state.updates == 1
    torch.testing.assert_close(state.left["a"], 0.05 * gradients(0)["a"] @ gradients(0)["a"].T)


def test_a_refresh_leaves_the_momentum_where_it_was_and_sorts_the_second_moment_along():
    transform = soap(precondition_frequency=4)
    _, state = followed(transform, gradients(-1), 5)
    after = transform.refresh(gradients(5), state)
    assert after is not state
    for name in ("a", "b"):
        before = transform.metric.back(state.first, state)[name]
        torch.testing.assert_close(transform.metric.back(after.first, after)[name], before, atol=1e-5, rtol=1e-4)
        assert not torch.equal(after.second[name], state.second[name])
        torch.testing.assert_close(
            after.second[name].flatten().sort().values, state.second[name].flatten().sort().values
        )  # fmt: skip
    torch.testing.assert_close(after.first["v"], state.first["v"])


def test_nothing_is_refreshed_between_periods():
    transform = soap(precondition_frequency=4)
    due = []
    params, state = gradients(-1), transform.init(gradients(-1))
    for step in range(11):
        after = transform.refresh(gradients(step), state)
        due.append(after is not state)
        _, state = transform.update(gradients(step), after, params)
    assert [step for step, was in enumerate(due) if was] == [1, 5, 9]


def test_repeated_refreshes_find_the_eigenbasis_of_the_factors():
    factor = torch.diag(torch.arange(1.0, 9.0))
    mixed = torch.linalg.qr(noise({"m": torch.empty(8, 8)}, 0)["m"]).Q
    factor, basis = mixed @ factor @ mixed.T, torch.eye(8)
    for _ in range(300):
        basis, _ = advance_basis(factor, basis)
    found = basis.T @ factor @ basis
    torch.testing.assert_close(found.diagonal(), torch.arange(8.0, 0.0, -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(find_basis(factor).abs(), basis.abs(), atol=1e-2, rtol=0)


def test_fresh_factors_let_the_basis_see_the_gradient_before_it_is_projected():
    """A direction that the factors have never seen: the stale basis smears it over all coordinates."""
    shapes = {"a": (12, 12)}
    surprise = {"a": 30 * torch.outer(*noise({"l": torch.empty(12), "r": torch.empty(12)}, 7).values())}

    def given(step):
        return surprise if step == 12 else gradients(step, shapes)

    concentrated = {}
    for fresh in (False, True):
        transform = soap(precondition_frequency=1, fresh_factors=fresh)
        _, state = followed(transform, gradients(-1, shapes), 12, given)
        turned = transform.metric.into(surprise, transform.refresh(surprise, state))["a"]
        concentrated[fresh] = (turned.abs().max() / turned.norm()).item()
    assert concentrated[True] > 0.9 > 2 * concentrated[False] - 0.9


def test_what_the_diagonal_holds_is_the_bias_corrected_second_moment():
    transform = soap(betas=(0.9, 0.9), precondition_frequency=1000)
    _, state = followed(transform, gradients(-1), 2)
    seen = transform.metric.into(gradients(1), state)
    for name, v in transform.metric.diagonal(state).items():
        torch.testing.assert_close(v, seen[name].square().to(v.dtype), rtol=1e-4, atol=1e-6)


def test_rank_deficient_gradients_leave_everything_finite():
    flat = {"a": torch.outer(torch.arange(12.0), torch.ones(12))}
    path, state = followed(soap(precondition_frequency=1), {"a": torch.zeros(12, 12)}, 30, lambda step: flat)
    assert path[-1]["a"].isfinite().all()
    torch.testing.assert_close(state.left_basis["a"].T @ state.left_basis["a"], torch.eye(12), atol=1e-5, rtol=0)


def test_double_precision_stays_double():
    def given(step):
        return gradients(step, dtype=torch.float64)

    path, state = followed(soap(), given(-1), 3, given)
    assert path[-1]["a"].dtype == state.left_basis["a"].dtype == torch.float64


def test_four_axes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`conv` has shape \(2, 3, 4, 5\)"):
        soap().init({"conv": torch.zeros(2, 3, 4, 5)})


def conditioned(condition, seed, size=32):
    left, right = (torch.linalg.qr(x).Q for x in noise({k: torch.empty(size, size) for k in "lr"}, seed).values())
    return (left * torch.logspace(0, -condition, size)) @ right


def test_cholesky_and_householder_give_one_basis_but_for_signs():
    batch = torch.stack([conditioned(2, seed) for seed in range(3)]).double()
    ours, theirs = decompose_by_cholesky(batch), decompose_by_householder(batch)
    torch.testing.assert_close(ours.abs(), theirs.abs(), atol=1e-10, rtol=0)


def test_a_matrix_beyond_cholesky_goes_to_householder_by_itself():
    batch = torch.stack([conditioned(1, 0), conditioned(12, 1), torch.zeros(32, 32)])
    basis = decompose_by_cholesky(batch)
    error = (basis.mT @ basis - torch.eye(32)).abs().amax((-2, -1))
    assert (error < 32 * 1e-6).all()
    torch.testing.assert_close(basis[1], decompose_by_householder(batch[1]))
    assert not torch.equal(basis[0], decompose_by_householder(batch[0]))


def test_the_updates_size_follows_the_normalisation():
    start = {"a": torch.zeros(12, 12)}
    transform = soap(0.1, weight_decay=0.0, normalize_gradients=True, betas=(0.0, 0.5))
    path, _ = followed(transform, start, 2, lambda step: {"a": gradients(step)["a"]})
    step = path[1]["a"] - path[0]["a"]
    assert step.square().mean().sqrt().item() == pytest.approx(0.1 * sqrt(0.5), rel=1e-4)


def test_a_refresh_keeps_the_layout_that_the_compiled_update_was_made_for():
    def given(step):
        return gradients(step, {"s": (3, 8, 8)})

    transform = soap(precondition_frequency=1)
    start = transform.init(given(-1))
    _, state = followed(transform, given(-1), 4, given)
    after = transform.refresh(given(4), state)
    for part in ("first", "second", "left_basis", "right_basis"):
        assert getattr(after, part)["s"].stride() == getattr(start, part)["s"].stride(), part
