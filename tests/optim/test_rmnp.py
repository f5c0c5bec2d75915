from math import sqrt

import pytest
import torch
from problems import noise

from gnflow.optim import rmnp

SHAPES = {"square": (5, 5), "wide": (4, 9), "tall": (9, 4)}
SIZES = {
    "original": {"square": 1.0, "wide": 1.0, "tall": 1.5},
    "match_rms": {"square": 0.2 * sqrt(5), "wide": 0.6, "tall": 0.4},
}


def matrices(seed=0, dtype=torch.float64):
    return noise({name: torch.empty(shape, dtype=dtype) for name, shape in SHAPES.items()}, seed)


def rows_normalised(x):
    return torch.stack([row / max(row.norm().item(), 1e-12) for row in x])


@pytest.mark.parametrize("scale", SIZES)
@pytest.mark.parametrize("nesterov", [True, False])
def test_ten_updates_follow_the_formula(scale, nesterov):
    params, average = matrices(), {name: torch.zeros_like(w) for name, w in matrices().items()}
    transform = rmnp(0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.2, scale=scale)
    state = transform.init(params)
    for step in range(10):
        gradients = matrices(step + 1)
        updates, state = transform.update(gradients, state, params)
        for name, g in gradients.items():
            average[name] = 0.9 * average[name] + 0.1 * g
            followed = 0.1 * g + 0.9 * average[name] if nesterov else average[name]
            direction = SIZES[scale][name] * rows_normalised(followed)
            torch.testing.assert_close(updates[name], -0.1 * (direction + 0.2 * params[name]), atol=1e-6, rtol=1e-6)
        params = {name: w + updates[name] for name, w in params.items()}


def test_updates_are_those_of_the_released_package_up_to_its_rounding():
    """Its form: a heavy ball instead of an average, the direction rounded to bfloat16, decay before the step."""
    params = matrices(dtype=torch.float32)
    theirs, ball = dict(params), {name: torch.zeros_like(w) for name, w in params.items()}
    transform = rmnp(0.1, weight_decay=0.1)
    state = transform.init(params)
    for step in range(20):
        gradients = matrices(step + 1, torch.float32)
        updates, state = transform.update(gradients, state, params)
        for name, g in gradients.items():
            ball[name] = 0.95 * ball[name] + g
            direction = SIZES["original"][name] * rows_normalised(g + 0.95 * ball[name])
            before = theirs[name]
            theirs[name] = (1 - 0.1 * 0.1) * before - 0.1 * direction.bfloat16().float()
            torch.testing.assert_close(updates[name], theirs[name] - before, atol=4e-3, rtol=4e-3)
        params = {name: w + updates[name] for name, w in params.items()}


def test_without_nesterov_it_follows_the_average_and_not_the_gradient():
    params = matrices()
    transform = rmnp(1.0, momentum=0.9, nesterov=False)
    _, state = transform.update(matrices(1), transform.init(params), params)
    updates, _ = transform.update(matrices(2), state, params)
    for name, g in matrices(2).items():
        average = 0.09 * matrices(1)[name] + 0.1 * g
        torch.testing.assert_close(updates[name], -SIZES["original"][name] * rows_normalised(average))
        assert (updates[name] + SIZES["original"][name] * rows_normalised(g)).norm() > 0.3 * updates[name].norm()


def test_rows_of_zeros_stay_and_the_others_have_norm_one():
    params, gradients = matrices(), matrices(1)
    for g in gradients.values():
        g[1] = 0
    transform = rmnp(1.0)
    updates, _ = transform.update(gradients, transform.init(params), params)
    for name, u in updates.items():
        assert torch.equal(u[1], torch.zeros_like(u[1]))
        norms = torch.linalg.vector_norm(u, dim=1)
        expected = torch.full_like(norms, SIZES["original"][name])
        expected[1] = 0
        torch.testing.assert_close(norms, expected)


@pytest.mark.parametrize("scale", SIZES)
def test_a_row_is_an_output_neuron_even_of_a_tall_matrix(scale):
    params = matrices()
    transform = rmnp(1.0, scale=scale)
    updates, _ = transform.update(matrices(1), transform.init(params), params)
    norms = torch.linalg.vector_norm(updates["tall"], dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, SIZES[scale]["tall"]))


def test_matrices_fused_along_their_rows_follow_the_directions_of_each_alone():
    query, key, value = (noise({"x": torch.empty(4, 6)}, seed)["x"] for seed in range(3))
    parts = {"query": query, "key": key, "value": value}
    fused = {"fused": torch.cat([query, key, value])}
    transform = rmnp(1.0, scale="match_rms")
    alone, _ = transform.update(parts, transform.init(parts), parts)
    together, _ = transform.update(fused, transform.init(fused), fused)
    torch.testing.assert_close(together["fused"], torch.cat(list(alone.values())))


def test_a_stack_is_its_matrices():
    a, b = noise({"a": torch.empty(6, 4), "b": torch.empty(6, 4)}, 3).values()
    stack, apart = {"s": torch.stack([a, b])}, {"a": a, "b": b}
    transform = rmnp(0.1, weight_decay=0.1)
    stacked, _ = transform.update(stack, transform.init(stack), stack)
    alone, _ = transform.update(apart, transform.init(apart), apart)
    torch.testing.assert_close(stacked["s"], torch.stack([alone["a"], alone["b"]]))


def test_a_misspelt_scale_and_a_vector_are_refused():
    with pytest.raises(ValueError, match="orginal"):
        rmnp(scale="orginal")
    with pytest.raises(ValueError, match=r"rmnp .* `gain` has shape \(3,\)"):
        rmnp().init({"gain": torch.ones(3)})
