import pytest
import torch
from problems import noise

from gnflow import trees
from gnflow.optim import adamw, chain, clip_by_global_norm, muon, partition, rmnp
from gnflow.optim.combine import clip_by_group
from gnflow.optim.stacks import Stacks

PARAMS = noise({"w": torch.empty(4, 4), "e": torch.empty(6, 4), "g": torch.empty(4)}, 0)


def test_each_part_is_updated_as_if_alone():
    routes = {"w": "matrix", "e": "rest", "g": "rest"}
    both = partition({"matrix": muon(0.1), "rest": adamw(0.01)}, routes)
    gradients = noise(PARAMS, 1)
    updates, state = both.update(gradients, both.init(PARAMS), PARAMS)
    assert list(updates) == list(PARAMS)
    for transform, names in ((muon(0.1), ["w"]), (adamw(0.01), ["e", "g"])):
        part = trees.pick(PARAMS, names)
        expected, _ = transform.update(trees.pick(gradients, names), transform.init(part), part)
        for name in names:
            assert torch.equal(updates[name], expected[name])
    assert set(state) == {"matrix", "rest"}


def test_a_parameter_without_a_route_is_an_error():
    with pytest.raises(KeyError, match="g"):
        partition({"matrix": adamw()}, {"w": "matrix", "e": "matrix"}).init(PARAMS)


def test_clipping_shortens_long_gradients_only():
    transform = clip_by_global_norm(1.0)
    gradients = noise(PARAMS, 1)
    clipped, state = transform.update(gradients, transform.init(PARAMS), PARAMS)
    assert trees.norm(clipped).item() == pytest.approx(1.0)
    short = trees.scale(gradients, 0.5 / trees.norm(gradients))
    kept, _ = transform.update(short, state, PARAMS)
    torch.testing.assert_close(kept, short)


def test_each_group_is_clipped_by_its_own_norm():
    gradients = noise(PARAMS, 1)
    transform = clip_by_group({"one": 1e-2, "other": 1e9}, {"w": "one", "g": "one", "e": "other"})
    clipped, _ = transform.update(gradients, transform.init(PARAMS), PARAMS)
    assert list(clipped) == list(gradients)
    own = trees.pick(gradients, ["w", "g"])
    torch.testing.assert_close(trees.pick(clipped, ["w", "g"]), trees.scale(own, 1e-2 / trees.norm(own)))
    torch.testing.assert_close(clipped["e"], gradients["e"])


def test_a_chain_hands_updates_on():
    both = chain(clip_by_global_norm(1e-3), muon(0.1, scale="original"))
    w = {"w": PARAMS["w"]}
    clipped, _ = both.update(w, both.init(w), w)
    plain, _ = muon(0.1).update(w, muon(0.1).init(w), w)
    torch.testing.assert_close(clipped, plain, atol=1e-4, rtol=1e-3)


def test_stacks_group_by_rule_and_shape_and_come_apart_again():
    tree = {"a": torch.ones(2, 3), "b": torch.zeros(2, 3), "c": torch.ones(2, 3), "d": torch.ones(4)}
    stacks = Stacks.by_rule(
        {"a": "muon", "b": "muon", "c": "rest", "d": "rest"}, {k: tuple(v.shape) for k, v in tree.items()}
    )
    assert stacks.members == {"muon:2x3": ("a", "b"), "rest:2x3": ("c",), "rest:vectors": ("d",)}
    assert stacks.rules == {"muon:2x3": "muon", "rest:2x3": "rest", "rest:vectors": "rest"}
    stacked = stacks.stack(tree)
    assert stacked["muon:2x3"].shape == (2, 2, 3)
    back = stacks.unstack(stacked)
    assert all(torch.equal(back[name], tree[name]) for name in tree)


@pytest.mark.parametrize("each", [(), ("muon",)])
def test_a_matrix_that_is_stored_as_in_out_is_joined_as_out_in(each):
    tree = {"a": torch.randn(3, 2), "b": torch.randn(2, 3), "v": torch.ones(4)}
    routes = {"a": "muon", "b": "muon", "v": "rest"}
    stacks = Stacks.by_rule(routes, {k: tuple(v.shape) for k, v in tree.items()}, each, transposed=["a"])
    stacked = stacks.stack(tree)
    if each:
        assert torch.equal(stacked["muon:a"], tree["a"].T)
        assert stacked["muon:a"].is_contiguous()
    else:
        assert torch.equal(stacked["muon:2x3"], torch.stack([tree["a"].T, tree["b"]]))
    back = stacks.unstack(stacked)
    assert all(torch.equal(back[name], tree[name]) for name in tree)
    assert all(torch.add(tree[name], back[name]).is_contiguous() for name in tree)


def test_a_chain_shows_the_momentum_of_what_was_clipped():
    w, transform = {"w": PARAMS["w"]}, rmnp(1.0)
    clipped = chain(clip_by_global_norm(1e-3), transform)
    _, state = clipped.update(w, clipped.init(w), w)
    short = trees.scale(w, 1e-3 / trees.norm(w))
    shown, expected = clipped.momentum(w, state), transform.momentum(short, state[-1])
    torch.testing.assert_close(shown["w"], expected["w"])
