import pytest
import torch
from problems import experiment, noise

from gnflow.compiler import methods
from gnflow.compiler.methods import build_transform as transform_of
from gnflow.optim import as_torch, hyperball, muon, partition, rmnp, soap
from gnflow.optim.protocol import Transform
from gnflow.optim.schedules import constant
from gnflow.spec.optimizer import Muon

SHAPES = {"one": (6, 4), "stack": (3, 4, 8)}


def drawn(seed=0):
    return noise({name: torch.empty(shape, dtype=torch.float64) for name, shape in SHAPES.items()}, seed)


def norms(tree):
    return {name: torch.linalg.vector_norm(w, dim=(-2, -1), keepdim=True) for name, w in tree.items()}


def followed(made, params, steps):
    state = made.init(params)
    for step in range(steps):
        gradients = drawn(step + 1)
        if made.refresh is not None:
            state = made.refresh(gradients, state)
        updates, state = made.update(gradients, state, params)
        params = {name: w + updates[name] for name, w in params.items()}
    return params, state


@pytest.mark.parametrize("inner", [muon(0.1), rmnp(0.1), soap(0.1, weight_decay=0.0, precondition_frequency=1)])
def test_every_matrix_of_a_stack_keeps_the_norm_that_it_began_with(inner):
    start = drawn()
    end, state = followed(hyperball(inner), start, 20)
    torch.testing.assert_close(norms(end), norms(start), atol=0, rtol=1e-12)
    torch.testing.assert_close(state.norms, norms(start))
    assert all((end[name] - start[name]).norm() > 0.3 * start[name].norm() for name in SHAPES)


def test_an_update_follows_the_formula():
    """The size of what is inside does not count, nor does its schedule: the step is a part of the norm."""
    inner = muon(0.3, schedule=lambda count: 7.0 * (count + 1).double())
    made = hyperball(inner, schedule=lambda count: (count + 1).double() / 2)
    params, state, alone = drawn(), made.init(drawn()), inner.init(drawn())
    for step in range(3):
        updates, state = made.update(drawn(step + 1), state, params)
        inside, alone = inner.update(drawn(step + 1), alone, params)
        for name, w in params.items():
            lr, kept = 0.3 * (step + 1) / 2, norms(drawn())[name]
            there = w + lr * kept * inside[name] / norms(inside)[name]
            torch.testing.assert_close(updates[name], kept * there / norms({"w": there})["w"] - w)
        params = {name: w + updates[name] for name, w in params.items()}
    torch.testing.assert_close(state.inner, alone)
    assert (state.updates.item(), state.learning_rate.item()) == (3, 0.3)


def test_weights_that_were_moved_off_the_sphere_come_back_to_it():
    made = hyperball(muon(0.1))
    state = made.init(drawn())
    shrunk = {name: 0.5 * w for name, w in drawn().items()}
    updates, _ = made.update(drawn(1), state, shrunk)
    torch.testing.assert_close(norms({name: w + updates[name] for name, w in shrunk.items()}), norms(drawn()))


def test_a_matrix_without_an_update_stays_where_it_is_and_so_does_one_of_zeros():
    made = hyperball(muon(0.1))
    params = drawn()
    params["stack"][1] = 0
    gradients = drawn(1)
    gradients["one"].zero_()
    updates, _ = made.update(gradients, made.init(params), params)
    assert not updates["one"].any()
    assert not updates["stack"][1].any()
    assert updates["stack"][0].any()
    assert updates["stack"][2].any()


def test_vectors_take_the_update_as_it_is():
    params = {"gain": torch.ones(3), "w": torch.eye(3)}
    made, inner = hyperball(soap(0.1, weight_decay=0.0)), soap(0.1, weight_decay=0.0)
    ours, theirs = made.init(params), inner.init(params)
    for _ in range(2):
        gradients = {"gain": torch.arange(3.0), "w": torch.eye(3)}
        found, ours = made.update(gradients, ours, params)
        expected, theirs = inner.update(gradients, theirs, params)
    assert torch.equal(found["gain"], expected["gain"])
    assert set(ours.norms) == {"w"}


def test_what_a_transform_offers_it_offers_still():
    inner = soap(0.1, weight_decay=0.0, precondition_frequency=3)
    made, state = hyperball(inner), hyperball(inner).init(drawn())
    assert isinstance(made, Transform)
    assert (made.period, made.momentum) == (3, None)
    _, state = made.update(drawn(1), state, drawn())
    renewed = made.refresh(drawn(2), state)
    torch.testing.assert_close(made.metric.into(drawn(3), renewed), inner.metric.into(drawn(3), renewed.inner))
    fed, _ = made.metric.update(drawn(2), drawn(2), drawn(2), renewed, drawn())
    plain, _ = made.update(drawn(2), renewed, drawn())
    torch.testing.assert_close(fed, plain)
    moving = hyperball(muon(0.1))
    torch.testing.assert_close(
        moving.momentum(drawn(1), moving.init(drawn())), muon(0.1).momentum(drawn(1), muon(0.1).init(drawn()))
    )  # fmt: skip
    assert made.metric.diagonal(renewed).keys() == SHAPES.keys()
    assert hyperball(muon()).refresh is None


def test_a_torch_scheduler_sets_the_length_of_the_step():
    weight = torch.nn.Parameter(drawn()["one"].clone())
    optimizer = as_torch(partition({"all": hyperball(muon(0.1))}, {"w": "all"}), [("w", weight)])
    lengths = []
    for lr in (0.2, 0.1):
        optimizer.param_groups[0]["lr"] = lr
        weight.grad, before = drawn(1)["one"], weight.detach().clone()
        optimizer.step()
        lengths.append(((weight.detach() - before).norm() / before.norm()).item())
    # A chord of the sphere, a little shorter than the tangent.
    assert lengths[0] == pytest.approx(0.2, rel=0.1)
    assert lengths[1] == pytest.approx(0.1, rel=0.1)
    assert optimizer.state_dict()["state"][0]["all/norms"].shape == (1, 1)
    again = as_torch(partition({"all": hyperball(muon(0.1))}, {"w": "all"}), [("w", weight)])
    again.load_state_dict(optimizer.state_dict())
    torch.testing.assert_close(again.state[weight]["all/norms"], optimizer.state[weight]["all/norms"])


def test_the_key_of_a_rule_wraps_its_transform_under_the_schedule_of_the_run():
    plain, wrapped = Muon(), Muon(hyperball=True)
    made = transform_of(wrapped, lambda count: constant()(count) / 4)
    assert not hasattr(transform_of(plain, constant()).init(drawn()), "norms")
    updates, _ = made.update(drawn(1), made.init(drawn()), drawn())
    length = (updates["one"].norm() / drawn()["one"].norm()).item()
    assert length == pytest.approx(0.02 / 4, rel=0.1)
    rules = [{"match": "attention", "use": {"kind": "rmnp", "hyperball": True}}]
    method = experiment({"kind": "muon", "rules": rules}).optimizer
    assert hasattr(methods.build_transform(method.rules[0].use, constant()).init(drawn()), "norms")
