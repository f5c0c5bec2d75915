import pytest
import torch
from problems import noise

from gnflow import trees
from gnflow.optim import muon
from gnflow.optim.muon import newton_schulz, orthogonalised

SHAPES = {"square": (12, 12), "wide": (6, 20), "tall": (20, 6)}


def matrices(seed=0):
    return noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, seed)


def polar(x):
    u, _, v = torch.linalg.svd(x.double(), full_matrices=False)
    return u @ v


def cosine(a, b):
    return ((a * b).sum() / (a.norm() * b.norm())).item()


def test_the_direction_is_near_the_orthogonal_polar_factor():
    for name, u in orthogonalised(matrices(), 5).items():
        assert cosine(u.double(), polar(matrices()[name])) > 0.98
        singular = torch.linalg.svdvals(u)
        assert 0.4 < singular.min() <= singular.max() < 1.2, name


def test_matrices_iterated_on_together_come_out_as_if_alone():
    together = orthogonalised(matrices(), 5)
    for name, x in matrices().items():
        torch.testing.assert_close(together[name], orthogonalised({name: x}, 5)[name], atol=2e-5, rtol=1e-4)


def test_a_stack_is_its_matrices():
    a, b = noise({"a": torch.empty(8, 4), "b": torch.empty(8, 4)}, 3).values()
    stacked = orthogonalised({"s": torch.stack([a, b])}, 5)["s"]
    alone = orthogonalised({"a": a, "b": b}, 5)
    torch.testing.assert_close(stacked, torch.stack([alone["a"], alone["b"]]), atol=2e-5, rtol=1e-4)


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


def test_the_momentum_is_an_average_and_the_gradient_is_left_alone():
    params, gradients = matrices(), matrices(1)
    kept = trees.clone(gradients)
    transform = muon(momentum=0.9)
    _, state = transform.update(gradients, transform.init(params), params)
    for name in params:
        torch.testing.assert_close(state.momentum[name], 0.1 * gradients[name])
        assert torch.equal(gradients[name], kept[name])


def test_a_zero_gradient_makes_no_update_and_a_rank_deficient_one_a_finite_one():
    zero, flat = torch.zeros(1, 4, 6), torch.ones(1, 4, 6)
    assert torch.equal(newton_schulz(zero, 5), zero)
    assert newton_schulz(flat, 5).isfinite().all()


def test_a_misspelt_scale_is_refused():
    with pytest.raises(ValueError, match="orginal"):
        muon(scale="orginal")


def test_a_vector_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`gain` has shape \(3,\)"):
        muon().init({"gain": torch.ones(3)})
