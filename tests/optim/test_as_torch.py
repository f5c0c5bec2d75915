import copy
import io
import pickle

import pytest
import pytorch_optimizer
import torch
from torch import nn
from torch.optim import lr_scheduler

from gnflow.optim import adamw, as_torch, chain, clip_by_global_norm, muon, partition, rmnp, route, soap

SHAPES = {"a": (6, 6), "b": (6, 6), "c": (4, 6), "gain": (6,), "shift": (4,), "scalar": ()}
BLOCKS = {name: shape for name, shape in SHAPES.items() if len(shape) == 2}
ROUTES = route(SHAPES, {"^[abc]$": "matrices", "": "rest"})

TRANSFORMS = {
    "adamw": lambda: adamw(0.01, weight_decay=0.1),
    "soap": lambda: soap(0.01, precondition_frequency=3),
    "parts": lambda: chain(
        clip_by_global_norm(1.0),
        partition({"matrices": muon(0.02, weight_decay=0.1), "rest": adamw(0.01, weight_decay=0.1)}, ROUTES),
    ),
    "parts of soap": lambda: partition(
        {"matrices": soap(0.01, precondition_frequency=2), "rest": adamw(0.01)}, ROUTES
    ),
}  # fmt: skip


def parameters(shapes=SHAPES, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return {
        name: nn.Parameter(0.1 * torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()
    }


def feed(params, step, without=()):
    generator = torch.Generator().manual_seed(100 + step)
    for name, p in params.items():
        gradient = torch.randn(p.shape, generator=generator).to(p.dtype)
        p.grad = None if name in without else gradient


def walk(optimizer, params, steps, first=0, without=lambda step: ()):
    for step in range(first, first + steps):
        feed(params, step, without(step))
        optimizer.step()
    return {name: p.detach().clone() for name, p in params.items()}


def equal(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


def same(theirs, ours, tolerance):
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


SOMETIMES = {0: ("a", "gain"), 3: ("b",), 4: ("b", "c", "scalar"), 7: tuple(SHAPES)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("missing", [{}, SOMETIMES], ids=["every gradient", "gradients missing"])
def test_adamw_is_that_of_torch(dtype, missing):
    ours, theirs = parameters(dtype=dtype), parameters(dtype=dtype)
    one = as_torch(adamw(0.01, (0.9, 0.999), weight_decay=0.1), ours.items())
    other = torch.optim.AdamW(theirs.values(), 0.01, (0.9, 0.999), weight_decay=0.1)
    found = walk(one, ours, 100, without=lambda step: missing.get(step % 10, ()))
    expected = walk(other, theirs, 100, without=lambda step: missing.get(step % 10, ()))
    same(expected, found, 1e-6)


def test_muon_moves_as_that_of_torch_does():
    ours, theirs = parameters(BLOCKS), parameters(BLOCKS)
    one = as_torch(muon(0.02, weight_decay=0.1), ours.items())
    other = torch.optim.Muon(theirs.values(), 0.02, weight_decay=0.1)
    for step in range(10):
        before = {name: p.detach().clone() for name, p in ours.items()}
        for p, q in zip(ours.values(), theirs.values(), strict=True):
            q.data.copy_(p.data)
        walk(one, ours, 1, step)
        walk(other, theirs, 1, step)
        for name, start in before.items():
            a, b = (ours[name] - start).flatten(), (theirs[name] - start).flatten()
            assert torch.cosine_similarity(a, b, dim=0) > 0.999, (name, step)


def test_soap_is_that_of_pytorch_optimizer_on_square_matrices():
    shapes = {"a": (6, 6), "b": (6, 6), "gain": (6,)}
    ours, theirs = parameters(shapes, torch.float64), parameters(shapes, torch.float64)
    one = as_torch(soap(0.003), ours.items())
    other = pytorch_optimizer.SOAP(theirs.values(), lr=0.003)
    same(walk(other, theirs, 100), walk(one, ours, 100), 1e-5)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("missing", [{}, SOMETIMES], ids=["every gradient", "gradients missing"])
def test_it_resumes_from_a_file_bit_for_bit(name, missing):
    def without(step):
        return missing.get(step, ())

    whole = parameters()
    expected = walk(as_torch(TRANSFORMS[name](), whole.items()), whole, 10, without=without)

    params = parameters()
    optimizer = as_torch(TRANSFORMS[name](), params.items())
    middle = walk(optimizer, params, 6, without=without)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)

    again = {name: nn.Parameter(value) for name, value in middle.items()}
    resumed = as_torch(TRANSFORMS[name](), again.items())
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for p, q in zip(params.values(), again.values(), strict=True):
        assert resumed.state[q].keys() == optimizer.state[p].keys()
        for key, value in optimizer.state[p].items():
            assert torch.equal(resumed.state[q][key], value)
            assert resumed.state[q][key].dtype == value.dtype
    assert equal(walk(resumed, again, 4, first=6, without=without), expected)


def test_a_state_dict_does_not_change_when_training_goes_on():
    params = parameters()
    optimizer = as_torch(adamw(), params.items())
    walk(optimizer, params, 2)
    kept = optimizer.state_dict()
    before = copy.deepcopy(kept["state"])
    walk(optimizer, params, 2, first=2)
    assert all(equal(before[i], kept["state"][i]) for i in before)


def test_a_copy_goes_its_own_way_and_a_pickle_is_refused():
    params = parameters()
    optimizer = as_torch(soap(0.01), params.items())
    walk(optimizer, params, 3)
    twins, twin = copy.deepcopy((params, optimizer))
    expected = walk(twin, twins, 2, first=3)
    assert equal(walk(optimizer, params, 2, first=3), expected)
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        pickle.dumps(optimizer)


@pytest.mark.parametrize("make", [lambda lr: adamw(lr, weight_decay=0.1), soap, lambda lr: chain(adamw(lr))])
def test_lr_is_the_learning_rate_itself(make):
    declared, given = parameters(), parameters()
    one = as_torch(make(0.02), declared.items())
    assert one.param_groups[0]["lr"] == one.defaults["lr"] == 0.02
    other = as_torch(make(0.5), [{"params": given.items(), "lr": 0.02}])
    assert equal(walk(one, declared, 4), walk(other, given, 4))


def test_rates_of_parts_keep_their_ratio_to_the_first():
    declared, given = parameters(), parameters()
    both = partition({"matrices": muon(0.04), "rest": adamw(0.01)}, ROUTES)
    half = partition({"matrices": muon(0.02), "rest": adamw(0.005)}, ROUTES)
    one, other = as_torch(half, declared.items()), as_torch(both, given.items())
    assert other.param_groups[0]["lr"] == 0.04
    other.param_groups[0]["lr"] = 0.02
    assert equal(walk(one, declared, 4), walk(other, given, 4))


SCHEDULERS = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10, cycle_momentum=False),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_set_the_step_as_they_do_that_of_torch(name):
    ours, theirs = parameters(), parameters()
    one = as_torch(adamw(0.01, (0.9, 0.999), weight_decay=0.1), ours.items())
    other = torch.optim.AdamW(theirs.values(), 0.01, (0.9, 0.999), weight_decay=0.1)
    constant = parameters()
    plain = walk(as_torch(adamw(0.01, (0.9, 0.999), weight_decay=0.1), constant.items()), constant, 8)
    schedulers = [SCHEDULERS[name](optimizer) for optimizer in (one, other)]
    for step in range(8):
        for optimizer, params, scheduler in zip((one, other), (ours, theirs), schedulers, strict=True):
            walk(optimizer, params, 1, step)
            scheduler.step(*([1.0] if name == "plateau" else []))
    assert one.param_groups[0]["lr"] == other.param_groups[0]["lr"]
    same(theirs, ours, 1e-6)
    assert (ours["a"] - plain["a"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["adamw", "soap", "parts of soap"])
def test_a_parameter_without_gradient_waits_as_if_its_steps_had_not_been(name):
    params, alone = parameters(), parameters()
    optimizer, short = (as_torch(TRANSFORMS[name](), tree.items()) for tree in (params, alone))
    expected = walk(short, alone, 8, without=lambda step: () if step % 2 else tuple(SHAPES))
    found = walk(optimizer, params, 8, without=lambda step: () if step % 2 else ("a", "gain"))
    same({name: expected[name] for name in ("a", "gain")}, found, 1e-6)
    assert not torch.allclose(found["b"], expected["b"])


def test_frozen_parameters_are_neither_moved_nor_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    for bias in (model[0].bias, model[1].bias):
        bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    optimizer = as_torch(muon(0.1), model.named_parameters())
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"0.weight", "1.weight"}
    assert set(optimizer.state) == {model[0].weight, model[1].weight}
    model[0].bias.requires_grad_(True)
    model(torch.ones(3, 4)).sum().backward()
    with pytest.raises(ValueError, match="muon takes matrices"):
        optimizer.step()


def test_groups_have_rates_of_their_own_and_can_be_added():
    grouped, apart = parameters(), parameters()
    first, last = ("a", "gain"), ("b", "c", "shift", "scalar")
    optimizer = as_torch(adamw(0.01), [{"params": [(name, grouped[name]) for name in first]}])
    optimizer.add_param_group({"params": [(name, grouped[name]) for name in last], "lr": 0.1})
    found = walk(optimizer, grouped, 3)
    for names, lr in ((first, 0.01), (last, 0.1)):
        part = {name: apart[name] for name in names}
        expected = [as_torch(adamw(lr), part.items()), apart]
        moved = walk(*expected, 3)
        assert all(torch.equal(found[name], moved[name]) for name in names)
        apart = parameters()
    again = as_torch(adamw(0.5), [{"params": [grouped[name] for name in names]} for names in (first, last)])
    again.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in again.param_groups] == [0.01, 0.1]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_types_stay(name):
    for dtype in (torch.bfloat16, torch.float64):
        params = parameters(dtype=dtype)
        start = {name: p.detach().clone() for name, p in params.items()}
        optimizer = as_torch(TRANSFORMS[name](), params.items())
        found = walk(optimizer, params, 5)
        assert all(value.dtype == dtype and value.isfinite().all() for value in found.values())
        assert not any(torch.equal(value, start[name]) for name, value in found.items() if value.ndim)


def test_types_may_be_mixed():
    params = {**parameters({"a": (4, 4)}), **parameters({"b": (4, 4)}, torch.float64)}
    found = walk(as_torch(muon(0.1), params.items()), params, 2)
    assert [value.dtype for value in found.values()] == [torch.float32, torch.float64]


def test_a_closure_is_called_once_with_gradients_and_its_loss_returned():
    w = nn.Parameter(torch.ones(3, 3))
    optimizer = as_torch(rmnp(0.1), [w])
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        calls.append(loss)
        return loss

    assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    assert w.square().sum() < 9
    optimizer.zero_grad()
    assert w.grad is None


def test_a_convolution_is_the_matrix_of_its_outputs_and_three_axes_are_matrices():
    flat = parameters({"c": (8, 27)})
    conv = {"c": nn.Parameter(flat["c"].detach().clone().view(8, 3, 3, 3))}
    found = walk(as_torch(muon(0.1), conv.items()), conv, 3)["c"]
    expected = walk(as_torch(muon(0.1), flat.items()), flat, 3)["c"]
    assert torch.equal(found.view(8, 27), expected)
    stack = parameters({"s": (2, 4, 6)})
    apart = {str(i): nn.Parameter(w.detach().clone()) for i, w in enumerate(stack["s"])}
    optimizer = as_torch(muon(0.1), apart.items())
    whole = as_torch(muon(0.1), stack.items())
    feed(stack, 0)
    for i, w in enumerate(apart.values()):
        w.grad = stack["s"].grad[i].clone()
    whole.step()
    optimizer.step()
    assert torch.equal(stack["s"], torch.stack(list(apart.values())))


def test_matrices_of_one_shape_are_one_stack():
    params = parameters()
    optimizer = as_torch(TRANSFORMS["parts"](), params.items())
    walk(optimizer, params, 1)
    [[cohort]] = optimizer.cohorts
    assert cohort.stacks.members == {"a": ("a", "b"), "c": ("c",), "gain": ("gain", "shift", "scalar")}
    assert optimizer.state[params["c"]]["1/matrices/momentum"].shape == (4, 6)


def test_it_can_be_compiled():
    eager, compiled = parameters(), parameters()
    one = as_torch(TRANSFORMS["parts of soap"](), eager.items())
    other = as_torch(TRANSFORMS["parts of soap"](), compiled.items(), compile=True)
    same(walk(one, eager, 5), walk(other, compiled, 5), 1e-5)
    for optimizer in (one, other):
        optimizer.param_groups[0]["lr"] = 0.0
    still = {name: p.detach().clone() for name, p in compiled.items()}
    assert equal(walk(other, compiled, 1, first=5), still)


EMPTY = {
    "muon": lambda: muon(weight_decay=0.1),
    "muon, split": lambda: muon(split=2),
    "muon, match_rms": lambda: muon(scale="match_rms", coefficients="polar_express"),
    "rmnp": rmnp,
    "rmnp, match_rms": lambda: rmnp(scale="match_rms", nesterov=False),
    "soap": lambda: soap(precondition_frequency=1, normalize_gradients=True),
    "soap, fresh": lambda: soap(precondition_frequency=2, fresh_factors=True),
    "adamw": adamw,
    "chain": lambda: chain(clip_by_global_norm(1.0), muon()),
    "partition": lambda: partition({"all": muon()}, {"empty": "all", "full": "all"}),
}


@pytest.mark.parametrize("beside", [{}, {"full": (4, 6)}], ids=["alone", "beside"])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (2, 0, 3), (0, 2, 3), (2, 0, 3, 3)])
@pytest.mark.parametrize("name", EMPTY)
def test_a_parameter_without_elements_is_left_alone_and_changes_nothing_for_the_others(name, shape, beside):
    params, alone = parameters({**beside, "empty": shape}), parameters(beside)
    ended = walk(as_torch(EMPTY[name](), params.items()), params, 4)
    assert ended.pop("empty").shape == shape
    if beside:
        assert equal(walk(as_torch(EMPTY[name](), alone.items()), alone, 4), ended)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (2, 0, 3), (0, 2, 3)])
@pytest.mark.parametrize("name", EMPTY)
def test_a_transform_alone_gives_an_empty_update(name, shape):
    transform, params = EMPTY[name](), {"full": torch.randn(4, 6), "empty": torch.zeros(shape)}
    state = transform.init(params)
    for step in range(3):
        if transform.refresh is not None:
            state = transform.refresh(params, state)
        updates, state = transform.update(params, state, params)
        assert {name: u.shape for name, u in updates.items()} == {name: p.shape for name, p in params.items()}
        assert all(bool(u.isfinite().all()) for u in updates.values()), step


def test_muon_for_a_whole_model_is_refused_with_the_way_out():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"`0\.bias` has shape \(4,\)\. Give it to .* `partition` .* `route`"):
        as_torch(muon(0.02), model.named_parameters())


def test_a_split_weight_is_taken():
    params = parameters({"fused": (6, 4)})
    assert as_torch(muon(0.5, split=3), params.items()).param_groups[0]["lr"] == 0.5


NONSENSE = {
    "no parameters": (ValueError, "empty parameter list", lambda: as_torch(adamw(), [])),
    "one tensor": (TypeError, "iterable", lambda: as_torch(adamw(), torch.ones(2))),
    "a set": (TypeError, "ordered", lambda: as_torch(adamw(), [{"params": {torch.ones(2)}}])),
    "not a tensor": (TypeError, "can only optimize Tensors", lambda: as_torch(adamw(), [1.0])),
    "not a transform": (TypeError, "takes a transform", lambda: as_torch(adamw, [torch.ones(2)])),
    "an option": (ValueError, "betas", lambda: as_torch(adamw(), [{"params": [torch.ones(2)], "betas": (0.9, 0.9)}])),
    "a negative rate": (ValueError, "-1", lambda: as_torch(adamw(), [{"params": [torch.ones(2)], "lr": -1.0}])),
    "a vector": (ValueError, r"`gain` has shape \(6,\)", lambda: as_torch(muon(), parameters().items())),
    "a result": (ValueError, "non-leaf", lambda: as_torch(adamw(), [nn.Parameter(torch.ones(2)) * 2])),
    "complex": (ValueError, "complex", lambda: as_torch(adamw(), [torch.ones(2, dtype=torch.complex64)])),
    "twice": (ValueError, "more than one .* named a", lambda: as_torch(adamw(), [("a", torch.ones(2))] * 2)),
    "no route": (
        KeyError,
        "no route for `x`",
        lambda: as_torch(partition({"m": adamw()}, {"y": "m"}), [("x", torch.ones(2))]),
    ),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_in_words(what):
    error, text, make = NONSENSE[what]
    with pytest.raises(error, match=text):
        make()


def test_a_refused_group_leaves_the_optimizer_as_it_was():
    params = parameters(BLOCKS)
    optimizer = as_torch(muon(), params.items())
    with pytest.raises(ValueError, match="muon takes"):
        optimizer.add_param_group({"params": [("v", torch.ones(3, requires_grad=True))]})
    walk(optimizer, params, 1)
    assert len(optimizer.param_groups) == 1


def test_the_state_of_another_optimizer_is_refused():
    ours, theirs = parameters(BLOCKS), parameters(BLOCKS)
    one, other = as_torch(muon(), ours.items()), torch.optim.AdamW(theirs.values())
    walk(other, theirs, 1)
    with pytest.raises(ValueError, match="of another optimizer"):
        one.load_state_dict(other.state_dict())


def test_sparse_gradients_are_refused():
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = as_torch(adamw(), table.named_parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="weight"):
        optimizer.step()


def test_routes_are_by_the_first_pattern_and_must_be_complete():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    routes = route(model.named_parameters(), {r"^0\.weight": "matrices", r"": "rest"})
    assert routes == {"0.weight": "matrices", "0.bias": "rest", "1.weight": "rest", "1.bias": "rest"}
    with pytest.raises(ValueError, match=r"no pattern matches 1\.weight, 1\.bias"):
        route(model.named_parameters(), {r"^0": "a"})
    with pytest.raises(ValueError, match=r"own no parameter.*: \^2, weight$"):
        route(model.named_parameters(), {r"": "a", r"^2": "b", "weight": "a"})
    with pytest.raises(ValueError, match="lead to matrx"):
        partition({"matrices": muon()}, {"w": "matrx"})
