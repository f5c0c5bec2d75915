"""Stacks: parameters joined into one tensor, and the views of them."""

import pytest
import torch
from problems import noise

from gnflow import optim, trees
from gnflow.objective import Objective
from gnflow.optim.descent import Descent
from gnflow.optim.stacks import Stacks

SHAPES = {"a": (6, 4), "scale": (5,), "b": (6, 4), "turned": (4, 6), "kernel": (3, 2, 2, 2), "gain": (), "bias": (3,)}
TRANSPOSED = {"turned"}


def draw(seed=0):
    return noise({name: torch.empty(shape) for name, shape in SHAPES.items()}, seed)


def build(each=(), transposed=TRANSPOSED):
    return Stacks.by_rule(dict.fromkeys(SHAPES, "rule"), SHAPES, each, transposed)


def share(stacked, joined):
    return {name: stacked[name].data_ptr() == joined[name].data_ptr() for name in stacked}


@pytest.mark.parametrize("each", [(), ("rule",)])
def test_views_of_stacks_are_joined_without_a_copy(each):
    stacks, tree = build(each), draw()
    stacked = stacks.stack(tree)
    joined = stacks.rejoin(stacks.unstack(stacked))
    assert all(share(stacked, joined).values())
    assert {name: each.shape for name, each in joined.items()} == {name: each.shape for name, each in stacked.items()}
    assert all(each.is_contiguous() and torch.equal(each, stacked[name]) for name, each in joined.items())


@pytest.mark.parametrize("each", [(), ("rule",)])
def test_all_other_trees_are_joined_by_a_copy_where_one_is_needed(each):
    stacks, tree = build(each), draw()
    views = stacks.unstack(stacks.stack(tree))
    swapped = {**views, "a": views["b"], "b": views["a"]}
    moved = {**views, "bias": views["bias"].clone()}
    beside = torch.cat([tree["a"].flatten(), torch.zeros(1), tree["b"].flatten()])
    gapped = {**views, "a": beside[:24].view(6, 4), "b": beside[25:].view(6, 4)}
    strided = {**views, "scale": torch.randn(5, 2)[:, 0]}
    for given in (tree, swapped, moved, gapped, strided, {name: each.contiguous() for name, each in views.items()}):
        joined, stacked = stacks.rejoin(given), stacks.stack(given)
        assert list(joined) == list(stacked)
        for name, each_joined in joined.items():
            assert torch.equal(each_joined, stacked[name]), name
            assert each_joined.stride() == stacked[name].stride(), name


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (2, 0, 3), (0,)])
@pytest.mark.parametrize("each", [(), ("rule",)])
def test_tensors_without_elements_are_joined(shape, each):
    stacks, tree = Stacks.by_rule({"a": "rule"}, {"a": shape}, each), {"a": torch.zeros(shape)}
    assert [x.shape for x in stacks.rejoin(tree).values()] == [x.shape for x in stacks.stack(tree).values()]


def test_tensors_of_two_types_in_one_storage_are_not_joined():
    both = torch.randn(12)
    tree = {"a": both[:6], "b": both.view(torch.int32)[6:]}
    stacks = Stacks.by_rule(dict.fromkeys(tree, "rule"), {"a": (6,), "b": (6,)})
    assert all(torch.equal(a, stacks.stack(tree)[name]) for name, a in stacks.rejoin(tree).items())


@pytest.mark.parametrize("each", [(), ("rule",)])
def test_separated_weights_have_the_strides_and_the_alignment_of_tensors_of_their_own(each):
    shapes = {
        "wide": (16, 4),
        "other": (16, 4),
        "a": (3, 5),
        "b": (3, 5),
        "row": (1, 6),
        "column": (6, 1),
        "last": (1, 6),
    }
    tree = noise({name: torch.empty(shape) for name, shape in shapes.items()}, 0)
    stacks = Stacks.by_rule(dict.fromkeys(shapes, "rule"), shapes, each, {"row", "column"})
    stacked = stacks.stack(tree)
    weights = stacks.separate(stacked)
    for name, w in weights.items():
        assert torch.equal(w, tree[name]), name
        assert w.stride() == tree[name].stride(), name
        assert w.data_ptr() % 64 == 0, name
    joined = stacks.rejoin(weights)
    (wide, *_) = stacked
    assert share(stacked, joined)[wide]
    assert all(each.stride() == stacked[name].stride() for name, each in joined.items())


def test_only_the_stacks_whose_members_moved_are_copied():
    stacks = build()
    stacked = stacks.stack(draw())
    views = stacks.unstack(stacked)
    views["bias"] = views["bias"].clone()
    assert share(stacked, stacks.rejoin(views)) == {name: name != "rule:vectors" for name in stacked}


def quadratic(params, tokens, *_):
    """A gradient that depends on the weights."""
    return {name: w + tokens.sum() * w.sin() for name, w in params.items()}, sum(w.sum() for w in params.values())


@pytest.mark.parametrize("transposed", [TRANSPOSED, ()])
def test_steps_from_joined_weights_are_those_from_others_to_the_bit_and_leave_their_start_as_it_was(transposed):
    transform = optim.adamw(learning_rate=0.1, weight_decay=0.1)
    descent = Descent(transform, build(transposed=transposed))
    objective = Objective(quadratic, quadratic, quadratic)
    batch = torch.ones(1, 2)
    joined = copied = draw()
    state = other = descent.init(joined)
    for _ in range(3):
        before, start = trees.clone(joined), joined
        joined, state, _ = descent.step(objective, joined, state, batch)
        copied, other, _ = descent.step(objective, trees.clone(copied), other, batch)
        for name, w in start.items():
            assert torch.equal(w, before[name]), name
            assert torch.equal(joined[name], copied[name]), name
            assert joined[name].is_contiguous()
            assert list(joined) == list(SHAPES)
    assert all(torch.equal(a, b) for a, b in zip(trees.list_tensors(state), trees.list_tensors(other), strict=True))
