import re
from math import sqrt

import pytest
import torch
from problems import noise
from pytorch_optimizer import AdaMuon
from updates import SHAPES, draw, follow

from gnflow import trees
from gnflow.optim import as_torch, muon
from gnflow.optim.newton_schulz import orthogonalise


def matrices(seed=0):
    return noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, seed)


def cosine(a, b):
    return ((a * b).sum() / (a.norm() * b.norm())).item()


@pytest.mark.parametrize(("scale", "theirs"), [("original", "original"), ("match_rms", "match_rms_adamw")])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_updates_point_where_torch_points(scale, theirs, nesterov, decay):
    ours = matrices()
    parameters = {name: torch.nn.Parameter(w.clone()) for name, w in ours.items()}
    reference = torch.optim.Muon(
        parameters.values(), lr=0.02, weight_decay=decay, momentum=0.95, nesterov=nesterov, adjust_lr_fn=theirs
    )
    transform = muon(0.02, nesterov=nesterov, weight_decay=decay, scale=scale)
    state = transform.init(ours)
    for step in range(5):
        gradients = matrices(step + 10)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name].clone()
        before = {name: p.detach().clone() for name, p in parameters.items()}
        reference.step()
        updates, state = transform.update(gradients, state, before)
        for name, parameter in parameters.items():
            moved = parameter.detach() - before[name]
            assert cosine(updates[name], moved) >= 0.999, (name, step)
            assert updates[name].norm().item() == pytest.approx(moved.norm().item(), rel=2e-2)


@pytest.mark.parametrize(
    ("scale", "sizes"),
    [
        ("original", {"square": 1.0, "wide": 1.0, "tall": sqrt(20 / 6)}),
        ("match_rms", {"square": 0.2 * sqrt(12), "wide": 0.2 * sqrt(20), "tall": 0.2 * sqrt(20)}),
    ],
)
@pytest.mark.parametrize("coefficients", ["jordan", "polar_express"])
def test_an_update_is_a_scaled_orthogonal_factor(scale, sizes, coefficients):
    params, gradients = matrices(), matrices(1)
    transform = muon(0.1, scale=scale, coefficients=coefficients)
    updates, _ = transform.update(gradients, transform.init(params), params)
    factors = orthogonalise(gradients, 5, coefficients)
    for name, u in updates.items():
        torch.testing.assert_close(u, -0.1 * sizes[name] * factors[name], atol=1e-5, rtol=1e-4)


def test_an_unbiased_mix_is_that_of_optax():
    params, b, m = matrices(), 0.9, trees.zeros(matrices())
    transform = muon(0.1, momentum=b, unbiased=True)
    state = transform.init(params)
    for t in range(1, 5):
        g = matrices(t)
        m = {name: b * m[name] + (1 - b) * g[name] for name in g}
        mixed = {name: b * m[name] / (1 - b ** (t + 1)) + (1 - b) * g[name] / (1 - b**t) for name in g}
        expected, factors = transform.momentum(g, state), orthogonalise(mixed)
        updates, state = transform.update(g, state, params)
        for name, u in updates.items():
            torch.testing.assert_close(expected[name], mixed[name])
            size = sqrt(max(1, u.shape[0] / u.shape[1]))
            torch.testing.assert_close(u, -0.1 * size * factors[name], atol=1e-5, rtol=1e-3)


def test_a_split_that_leaves_a_rest_is_refused_by_name():
    with pytest.raises(ValueError, match=re.escape("the rows of `square`, of shape (12, 12), into 5 matrices")):
        muon(split=5).init(matrices())


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_momentum_is_an_average_and_neither_it_nor_the_gradient_is_written_to(nesterov):
    params, gradients = matrices(), matrices(1)
    transform = muon(momentum=0.9, nesterov=nesterov)
    _, state = transform.update(gradients, transform.init(params), params)
    kept, own = trees.clone(gradients), trees.clone(state.momentum)
    _, after = transform.update(gradients, state, params)
    for name in params:
        torch.testing.assert_close(own[name], 0.1 * gradients[name])
        torch.testing.assert_close(after.momentum[name], 0.19 * gradients[name])
        assert torch.equal(state.momentum[name], own[name])
        assert torch.equal(gradients[name], kept[name])


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_momentum_it_shows_is_what_the_next_update_orthogonalises(nesterov):
    params = matrices()
    transform = muon(1.0, nesterov=nesterov, split=2)
    _, state = transform.update(matrices(1), transform.init(params), params)
    shown = transform.momentum(matrices(2), state)
    updates, _ = transform.update(matrices(2), state, params)
    assert shown["tall"].shape == (2, 10, 6)
    for name, u in orthogonalise(shown).items():
        m, n = u.shape[-2:]
        expected = -sqrt(max(1, m / n)) * u.reshape(params[name].shape)
        torch.testing.assert_close(updates[name], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("second_moment", "befor"),
        ("equalize", "row"),
    ],
)
def test_a_misspelt_option_is_refused(option, value):
    with pytest.raises(ValueError, match=value):
        muon(**{option: value})


def nesterov(steps=6, momentum=0.95):
    """The directions that the updates of `follow` are made of."""
    average, found = {name: torch.zeros_like(w) for name, w in draw().items()}, []
    for step in range(steps):
        gradients = draw(step)
        average = {name: momentum * m + (1 - momentum) * gradients[name] for name, m in average.items()}
        found.append({name: (1 - momentum) * g + momentum * average[name] for name, g in gradients.items()})
    return found


def size(name):
    m, n = SHAPES[name]
    return sqrt(max(1, m / n))


def test_the_second_moment_before_the_iteration_is_of_gradients_and_divides_the_momentum():
    found, states = follow(muon(1.0, second_moment="before", second_beta=0.8, eps=1e-6))
    second = {name: torch.zeros_like(w) for name, w in draw().items()}
    for step, followed in enumerate(nesterov()):
        second = {name: 0.8 * v + 0.2 * draw(step)[name] ** 2 for name, v in second.items()}
        factors = orthogonalise({name: x / (second[name].sqrt() + 1e-6) for name, x in followed.items()})
        for name, u in factors.items():
            torch.testing.assert_close(found[step][name], -size(name) * u, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(states[-1].second, second)


def test_the_second_moment_after_the_iteration_is_of_its_results_and_keeps_their_norm():
    found, states = follow(muon(1.0, second_moment="after", second_beta=0.8, eps=1e-6))
    second = {name: torch.zeros_like(w) for name, w in draw().items()}
    for step, followed in enumerate(nesterov()):
        for name, u in orthogonalise(followed).items():
            second[name] = 0.8 * second[name] + 0.2 * u**2
            divided = u / (second[name].sqrt() + 1e-6)
            expected = -size(name) * divided * u.norm() / divided.norm()
            torch.testing.assert_close(found[step][name], expected, atol=1e-10, rtol=1e-8)
            assert found[step][name].norm().item() == pytest.approx(size(name) * u.norm().item())
    torch.testing.assert_close(states[-1].second, second)


def test_after_the_iteration_it_points_where_ada_muon_points():
    """Its norm is sqrt(min(m, n)), of which that of five steps of Newton-Schulz is near.

    In its bfloat16 small entries change sign.
    """
    params = draw()
    weights = {name: torch.nn.Parameter(w.float()) for name, w in params.items()}
    reference = AdaMuon(
        [{"params": list(weights.values()), "lr": 1.0, "use_muon": True, "use_adjusted_lr": False}], betas=(0.95, 0.9)
    )
    found, _ = follow(muon(1.0, nesterov=False, second_moment="after", second_beta=0.9))
    for step, updates in enumerate(found):
        before = {name: p.detach().clone() for name, p in weights.items()}
        for name, p in weights.items():
            p.grad = draw(step)[name].float()
        reference.step()
        for name, p in weights.items():
            assert cosine(p.detach() - before[name], updates[name].float()) > 0.97, (name, step)


def test_equal_rows_are_those_of_a_matrix_whose_rows_are_scaled():
    scaled, plain = muon(1.0, equalize="rows"), muon(1.0)
    params, gradients = draw(), draw(0)
    rows = {name: g / torch.linalg.vector_norm(g, dim=1, keepdim=True) for name, g in gradients.items()}
    louder = {name: g * torch.arange(1.0, len(g) + 1).unsqueeze(1) for name, g in gradients.items()}
    expected, _ = plain.update(rows, plain.init(params), params)
    for given in (gradients, louder):
        updates, _ = scaled.update(given, scaled.init(params), params)
        torch.testing.assert_close(updates, expected, atol=1e-9, rtol=1e-7)


def test_options_that_say_nothing_change_no_bit_and_keep_nothing():
    said = muon(1.0, second_moment="none", second_beta=0.5, eps=0.1, equalize="none", dtype="auto")
    (plain, states), (found, after) = follow(muon(1.0)), follow(said)
    for ours, theirs in zip(found, plain, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in SHAPES)
    assert states[-1].second == after[-1].second == {}


def test_the_spectral_scale_is_the_root_of_outputs_over_inputs():
    params, gradients = matrices(), matrices(1)
    transform = muon(1.0, scale="spectral")
    updates, _ = transform.update(gradients, transform.init(params), params)
    for name, u in orthogonalise(gradients).items():
        m, n = SHAPES[name]
        torch.testing.assert_close(updates[name], -sqrt(m / n) * u, atol=1e-5, rtol=1e-4)


def test_the_iteration_may_be_in_bfloat16_anywhere():
    params, gradients = matrices(), matrices(1)
    rough, _ = muon(1.0, dtype="bfloat16").update(gradients, muon(1.0).init(params), params)
    fine, _ = muon(1.0).update(gradients, muon(1.0).init(params), params)
    for name in SHAPES:
        assert rough[name].dtype == torch.float32
        assert 1e-4 < (rough[name] - fine[name]).norm() / fine[name].norm() < 0.1


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_gradients_of_another_type_than_the_parameter_are_taken(given: torch.dtype) -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 3, dtype=torch.bfloat16))
    parameter.grad_dtype = None  # any type
    parameter.grad = torch.randn(4, 3, dtype=given)
    as_torch(muon(0.1, weight_decay=0.1), [parameter]).step()
    assert parameter.isfinite().all()
    assert not torch.equal(parameter, torch.ones_like(parameter))
