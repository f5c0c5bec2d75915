import pytest
import torch
from problems import noise

from gnflow import trees
from gnflow.objective import Objective
from gnflow.optim import adamw, muon, soap
from gnflow.optim.combine import partition
from gnflow.optim.descent import Descent
from gnflow.optim.fisher_orthogonal import FisherOrthogonal, Projection, damp_diagonal, merge_pair, shorten
from gnflow.optim.stacks import Stacks

HALF = torch.tensor(0.5, dtype=torch.float64)
FREE = Projection(beta_bound=1e9)


def pair(seed, shape=(4, 5)):
    """Two gradients and an anisotropic diagonal, in float64."""
    drawn = noise({k: torch.empty(shape, dtype=torch.float64) for k in ("one", "two", "f")}, seed)
    return {"w": drawn["one"]}, {"w": drawn["two"]}, {"w": drawn["f"].exp() + 0.05}


def dense(one, two, fisher):
    """FOP as published, with F a matrix -> (g_c, beta)."""
    g1, g2, F = one["w"].flatten(), two["w"].flatten(), torch.diag(fisher["w"].flatten())
    mean, delta = (g1 + g2) / 2, g1 - g2
    perpendicular = delta - (delta @ F @ mean) / (mean @ F @ mean) * mean
    inverse = torch.linalg.inv(F)
    beta = (mean @ inverse @ perpendicular) / (perpendicular @ inverse @ perpendicular)
    return (mean + beta * perpendicular).reshape(one["w"].shape), beta


def test_a_merge_is_the_published_projection_with_a_dense_fisher_matrix():
    for seed in range(20):
        one, two, fisher = pair(seed)
        expected, beta = dense(one, two, fisher)
        found = merge_pair(one, two, HALF, fisher, FREE)
        torch.testing.assert_close(found.gradient["w"], expected, atol=1e-10, rtol=1e-10)
        assert found.beta.item() == pytest.approx(beta.item(), abs=1e-10)
        assert abs(beta) > 1e-3


def test_the_halves_may_be_swapped():
    one, two, fisher = pair(1)
    there, back = merge_pair(one, two, HALF, fisher, FREE), merge_pair(two, one, HALF, fisher, FREE)
    torch.testing.assert_close(there.gradient, back.gradient, atol=1e-12, rtol=1e-12)


def test_gradients_that_agree_are_left_alone():
    one, _, fisher = pair(2)
    torch.testing.assert_close(merge_pair(one, one, HALF, fisher, FREE).gradient, one, atol=0, rtol=0)


def test_an_isotropic_metric_projects_nothing():
    one, two, _ = pair(3)
    found = merge_pair(one, two, HALF, {"w": torch.full((4, 5), 3.0, dtype=torch.float64)}, FREE)
    torch.testing.assert_close(found.gradient["w"], (one["w"] + two["w"]) / 2, atol=1e-12, rtol=0)
    assert found.beta.abs() < 1e-12


def test_the_step_never_shrinks_and_at_most_doubles_in_the_metric():
    for seed in range(300):
        one, two, fisher = pair(seed)
        mean = (one["w"] + two["w"]) / 2
        x = merge_pair(one, two, HALF, fisher, FREE).gradient["w"]
        ratio = ((x * x / fisher["w"]).sum() / (mean * mean / fisher["w"]).sum()).sqrt().item()
        assert 1 - 1e-10 <= ratio <= 2 + 1e-10


def test_the_layer_step_is_between_a_half_and_one_and_one_without_projection():
    for seed in range(100):
        one, two, fisher = pair(seed)
        mean = {"w": (one["w"] + two["w"]) / 2}
        x = merge_pair(one, two, HALF, fisher, FREE).gradient
        eta = (shorten(x, mean, fisher)["w"] / x["w"]).flatten()
        torch.testing.assert_close(eta, eta[:1].expand_as(eta))
        assert 0.5 - 1e-10 <= eta[0] <= 1 + 1e-10
        torch.testing.assert_close(shorten(mean, mean, fisher)["w"], mean["w"])


def test_every_matrix_of_a_stack_has_its_own_coefficient():
    pairs = [pair(seed) for seed in (4, 5)]
    one, two, fisher = ({"w": torch.stack([p[i]["w"] for p in pairs])} for i in range(3))
    stacked = merge_pair(one, two, HALF, fisher, FREE).gradient["w"]
    for i, (a, b, f) in enumerate(pairs):
        torch.testing.assert_close(stacked[i], merge_pair(a, b, HALF, f, FREE).gradient["w"], atol=1e-12, rtol=1e-12)


def test_the_bound_and_the_factor_hold_the_coefficient():
    one, two, fisher = pair(6)
    _, beta = dense(one, two, fisher)
    assert merge_pair(one, two, HALF, fisher, Projection(0.5, 1e9)).beta.item() == pytest.approx(0.5 * beta.item())
    bounded = merge_pair(one, two, HALF, fisher, Projection(1.0, 1e-4)).beta.item()
    assert abs(bounded) == pytest.approx(1e-4)


def test_unequal_leaves_enter_the_mean_by_their_size():
    one, two, fisher = pair(7)
    found = merge_pair(one, two, torch.tensor(0.75, dtype=torch.float64), fisher, Projection(0.0)).gradient["w"]
    torch.testing.assert_close(found, 0.75 * one["w"] + 0.25 * two["w"])


def test_before_the_first_update_the_damped_metric_is_isotropic():
    assert damp_diagonal({"w": torch.zeros(3, 4)}, Projection())["w"].unique().numel() == 1
    f = damp_diagonal({"w": torch.tensor([[1.0, 3.0]])}, Projection(damping=0.5))["w"]
    torch.testing.assert_close(f, torch.tensor([[1.0, 2.0]]))
    root = damp_diagonal({"w": torch.tensor([[1.0, 9.0]])}, Projection(damping=0.5, fisher="root"))["w"]
    torch.testing.assert_close(root, torch.tensor([[1.0, 2.0]]))


# ------------------------------------------------------------------------------------------------ the optimizer

SHAPES = {"a": (6, 6), "b": (6, 6), "v": (5,)}
STACKS = Stacks.by_rule({"a": "soap", "b": "soap", "v": "others"}, SHAPES)


def noisy_gradient(params, tokens):
    """A gradient that is a function of the micro-batch alone; tokens hold its seed."""
    return noise(params, int(tokens)), torch.zeros(())


NOISE = Objective(value=None, gradient=noisy_gradient, curved=None)


def transform():
    return partition({"soap": soap(0.01), "others": adamw(0.01)._replace(metric=None)}, STACKS.rules)


def trained(optimizer, microbatches, steps=6, same=False):
    params = noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, 0)
    state, seen = optimizer.init(params), []
    for step in range(steps):
        seeds = torch.full((microbatches,), step) if same else torch.arange(microbatches) + step * microbatches
        params, state, metrics = optimizer.step(NOISE, params, state, seeds)
        seen.append(metrics)
    return params, seen


def test_beta_zero_is_soap_exactly():
    plain, _ = trained(Descent(transform(), STACKS, 8), 8)
    control, _ = trained(FisherOrthogonal(transform(), STACKS, 8, leaves=8, projection=Projection(beta=0.0)), 8)
    assert all(torch.equal(control[name], plain[name]) for name in plain)


def test_microbatches_that_agree_are_soap():
    plain, _ = trained(Descent(transform(), STACKS, 8), 8, same=True)
    folded, _ = trained(FisherOrthogonal(transform(), STACKS, 8, leaves=8), 8, same=True)
    torch.testing.assert_close(folded, plain, atol=1e-5, rtol=0)


def test_the_projection_acts_on_the_matrices_and_on_nothing_else():
    plain, _ = trained(Descent(transform(), STACKS, 8), 8)
    folded, metrics = trained(FisherOrthogonal(transform(), STACKS, 8, leaves=4), 8)
    assert not torch.allclose(folded["a"], plain["a"], atol=1e-3)
    torch.testing.assert_close(folded["v"], plain["v"])
    assert metrics[-1]["fop/norm_ratio"] > 1
    assert {"fop/beta_1", "fop/beta_2", "fop/growth_1", "fop/growth_2"} <= set(metrics[-1])
    assert metrics[-1]["fop/beta_1"] != 0


def test_before_there_is_a_basis_the_direction_is_the_mean():
    optimizer = FisherOrthogonal(transform(), STACKS, 8, leaves=8)
    params = noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, 0)
    slope, _, _ = optimizer.find_slope(NOISE, params, optimizer.init(params), torch.arange(8))
    mean, _, _ = Descent(transform(), STACKS, 8).find_slope(NOISE, params, None, torch.arange(8))
    torch.testing.assert_close(slope.direction, mean.direction, atol=1e-6, rtol=0)


@pytest.mark.parametrize("leaves", [2, 3, 4, 6, 8])
def test_leaves_are_folded_in_the_order_of_the_tree(leaves):
    """Against a fold written as recursion on halves, for powers of two, and as weights for the rest."""
    optimizer = FisherOrthogonal(transform(), STACKS, leaves, leaves=leaves)
    params = noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, 0)
    state = optimizer.init(params)
    for step in range(3):
        params, state, _ = optimizer.step(NOISE, params, state, torch.arange(leaves) + leaves * step)
    metric = optimizer.transform.metric
    fisher = damp_diagonal(metric.diagonal(state), Projection())
    xs = [metric.into(STACKS.stack(noise(params, 50 + i)), state) for i in range(leaves)]

    def folded(part):
        if len(part) == 1:
            return part[0]
        half = 1 << ((len(part) - 1).bit_length() - 1)
        share = torch.tensor(half / len(part))
        return merge_pair(folded(part[:half]), folded(part[half:]), share, fisher, Projection()).gradient

    slope, _, _ = optimizer.find_slope(NOISE, params, state, torch.arange(leaves) + 50)
    torch.testing.assert_close(slope.direction, metric.back(folded(xs), state), atol=1e-5, rtol=1e-5)


def test_a_fold_of_sixteen_holds_five_gradients_at_most():
    optimizer = FisherOrthogonal(transform(), STACKS, 16, leaves=16)
    waiting, most = 0, 0
    into, merge = optimizer.into, optimizer.merge

    def rotated(*arguments):
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return into(*arguments)

    def joined(*arguments):
        nonlocal waiting
        waiting -= 1
        return merge(*arguments)

    optimizer.into, optimizer.merge = rotated, joined
    trained(optimizer, 16, steps=1)
    assert (waiting, most) == (1, 5)


def test_statistics_are_fed_with_what_is_declared():
    def factors(**options):
        optimizer = FisherOrthogonal(transform(), STACKS, 4, leaves=4, **options)
        params = noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, 0)
        state = optimizer.init(params)
        for step in range(4):
            params, state, _ = optimizer.step(NOISE, params, state, torch.arange(4) + 4 * step)
        return state["soap"]

    params = noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, 0)
    plain = Descent(transform(), STACKS, 4)
    state = plain.init(params)
    for step in range(4):
        params, state, _ = plain.step(NOISE, params, state, torch.arange(4) + 4 * step)
    default, fed = factors(), factors(statistics="folded")
    torch.testing.assert_close(default.left, state["soap"].left, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(fed.left["soap:6x6"], default.left["soap:6x6"])
    steady = factors(second_moment="plain")
    torch.testing.assert_close(steady.second, state["soap"].second, atol=1e-5, rtol=1e-4)


def test_a_transform_without_a_metric_is_refused():
    with pytest.raises(ValueError, match="needs a transform that has a metric"):
        FisherOrthogonal(muon(), STACKS, 4)
    with pytest.raises(ValueError, match="8 leaves from 4 micro-batches"):
        FisherOrthogonal(transform(), STACKS, 4, leaves=8)


def test_metrics_are_scalars_and_the_loss_is_the_mean():
    counted = NOISE._replace(gradient=lambda params, tokens: (trees.zeros(params), tokens.float()))
    optimizer = FisherOrthogonal(transform(), STACKS, 6, leaves=4)
    params = noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, 0)
    _, _, metrics = optimizer.step(counted, params, optimizer.init(params), torch.arange(6))
    assert metrics["loss/train"].item() == pytest.approx(2.5)
    assert all(value.ndim == 0 and value.isfinite() for value in metrics.values())
