import weakref

import multimodal
import pytest
import torch

from gnflow import trees
from gnflow.objective import Objective
from gnflow.optim.adamw import adamw
from gnflow.optim.combine import partition
from gnflow.optim.fisher_orthogonal import FisherOrthogonal, Projection, damp_diagonal, merge_pair
from gnflow.optim.fold_tree import fold_tree, name_merges
from gnflow.optim.remembered_fold import RememberedFold
from gnflow.optim.soap import soap
from gnflow.optim.stacks import Stacks
from gnflow.verify.checks import OPTIMIZER
from gnflow.verify.subject import shrink

SHAPES = {"a": (6, 4), "b": (6, 4), "v": (5,)}
STACKS = Stacks.by_rule({"a": "soap", "b": "soap", "v": "others"}, SHAPES)
RHO = 0.7
BY_MODALITY = {"kind": "ml_fop_soap", "granularity": "modality", "microbatches": 3, "memory": 0.9}
OF_GROUPS = {"kind": "ml_fop_soap", "leaves": 3, "microbatches": 3, "memory": 0.9}


def draw(seed):
    maker = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=maker, dtype=torch.float64) for name, shape in SHAPES.items()}


NOISE = Objective(value=None, gradient=lambda params, tokens: (draw(int(tokens)), torch.zeros(())), curved=None)


def make(kind, memory, leaves=2, bound=1.0):
    transform = partition({"soap": soap(0.01), "others": adamw(0.01)._replace(metric=None)}, STACKS.rules)
    return kind(transform, STACKS, leaves, leaves=leaves, projection=Projection(beta_bound=bound, memory=memory))


def train(optimizer, batches):
    params = draw(0)
    state = optimizer.init(params)
    for batch in batches:
        params, state, _ = optimizer.step(NOISE, params, state, torch.tensor(batch))
    return params, state


def test_the_means_are_those_of_the_formula_and_take_the_place_of_the_difference():
    optimizer = make(RememberedFold, RHO, bound=1e-3)  # it is reached; without a bound the length of d would not matter
    batches = [(1, 2), (3, 4), (5, 6), (7, 8)]
    params, state = train(optimizer, batches[:3])
    mean = {stack: torch.zeros_like(value) for stack, value in STACKS.stack(draw(0)).items()}
    for one, two in batches:
        difference = trees.subtract(STACKS.stack(draw(one)), STACKS.stack(draw(two)))
        mean = {name: RHO * mean[name] + (1 - RHO) * difference[name] for name in mean}
    metric, inner = optimizer.transform.metric, state.inner
    ones, twos = (metric.into(STACKS.stack(draw(seed)), inner) for seed in batches[3])
    turned = metric.into(trees.scale(mean, 1 / (1 - RHO**4)), inner)
    fisher, bounded = damp_diagonal(metric.diagonal(inner), Projection()), Projection(beta_bound=1e-3)
    expected = merge_pair(ones, twos, torch.tensor(0.5), fisher, bounded, trees.pick(turned, fisher)).gradient

    slopes = []
    advance = optimizer.advance
    optimizer.advance = lambda slope, *rest: (slopes.append(slope), advance(slope, *rest))[1]
    _, after, _ = optimizer.step(NOISE, params, state, torch.tensor(batches[3]))
    torch.testing.assert_close(slopes[0].direction, metric.back(expected, inner), atol=1e-10, rtol=1e-8)
    assert set(after.merges) == {"1.1"}
    assert set(after.merges["1.1"].mean) == {"soap:6x4"}  # others have no projection
    torch.testing.assert_close(after.merges["1.1"].mean["soap:6x4"], mean["soap:6x4"], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("leaves", [2, 3, 8])
def test_without_decay_it_is_the_fold_without_memory(leaves):
    batches = [tuple(range(leaves * step, leaves * (step + 1))) for step in range(4)]
    remembered, _ = train(make(RememberedFold, 0.0, leaves), batches)
    plain, _ = train(make(FisherOrthogonal, 0.0, leaves), batches)
    torch.testing.assert_close(remembered, plain, atol=1e-9, rtol=1e-7)


def test_a_difference_that_lasts_is_remembered_as_it_is_and_one_that_does_not_is_averaged_away():
    lasting = [(1, 2)] * 6
    same, _ = train(make(RememberedFold, RHO), lasting)
    plain, _ = train(make(FisherOrthogonal, 0.0), lasting)
    torch.testing.assert_close(same, plain, atol=1e-9, rtol=1e-7)
    changing = [(1, 2), (2, 1)] * 60
    _, state = train(make(RememberedFold, 0.98), changing)
    assert trees.norm(state.merges["1.1"].mean) < 0.02 * trees.norm(trees.subtract(draw(1), draw(2)))


@pytest.mark.parametrize("rho", [0.7, 0.999, 0.9999])
def test_the_first_mean_is_the_first_difference(rho):
    optimizer = make(RememberedFold, rho)
    state = optimizer.init(draw(0))
    ones, twos = (STACKS.stack(draw(seed)) for seed in (1, 2))
    memory, chosen = optimizer.recall(ones, twos, torch.tensor(0.5), state.merges["1.1"], state.inner)
    expected = {name: ones[name] - twos[name] for name in chosen}
    torch.testing.assert_close(chosen, expected, atol=0, rtol=1e-12)
    assert memory.updates == 1


def test_a_merge_with_an_empty_leaf_changes_no_mean_and_uses_none():
    optimizer = make(RememberedFold, RHO)
    _, state = train(optimizer, [(1, 2), (3, 4)])
    ones = STACKS.stack(draw(5))
    nothing = trees.zeros(ones)
    for one, two, share in ((ones, nothing, 1.0), (nothing, ones, 0.0)):
        before = state.merges["1.1"]
        after, chosen = optimizer.recall(one, two, torch.tensor(share), before, state.inner)
        assert after.updates == before.updates == 2
        assert torch.equal(after.mean["soap:6x4"], before.mean["soap:6x4"])
        torch.testing.assert_close(chosen, {name: one[name] - two[name] for name in chosen})


@pytest.mark.parametrize("leaves", [2, 3, 5, 8])
def test_the_tree_has_one_merge_less_than_leaves_and_names_each_of_them_once(leaves):
    names = name_merges(leaves)
    assert len(names) == len(set(names)) == leaves - 1
    assert fold_tree(map(str, range(leaves)), lambda name, one, two: one + two) == "01234567"[:leaves]


@pytest.mark.parametrize("leaves", [2, 5, 8, 16])
def test_few_items_are_alive_when_the_next_leaf_is_made(leaves):
    class Item:
        pass

    alive, counts = weakref.WeakSet(), []

    def make_item():
        alive.add(item := Item())
        return item

    def make_leaves():
        for _ in range(leaves):
            counts.append(len(alive))
            yield make_item()

    fold_tree(make_leaves(), lambda name, one, two: make_item())
    assert counts == [number.bit_count() for number in range(leaves)]


def test_a_memory_needs_the_fold_that_keeps_it():
    with pytest.raises(ValueError, match="needs a RememberedFold"):
        make(FisherOrthogonal, RHO)


@pytest.mark.parametrize("optimizer", [BY_MODALITY, OF_GROUPS], ids=["modality", "groups"])
@pytest.mark.parametrize("claim", list(OPTIMIZER))
def test_it_keeps_the_promises_of_every_optimizer(claim, optimizer):
    OPTIMIZER[claim](shrink(multimodal.experiment("janus", optimizer)))


def test_without_a_projection_there_is_no_memory():
    small = shrink(multimodal.experiment("janus", {**BY_MODALITY, "beta": 0.0}))
    OPTIMIZER["resumes bit for bit"](small)
