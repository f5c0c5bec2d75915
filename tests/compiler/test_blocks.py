"""The blocks of layerwise Gauss-Newton, as defined here and as the paper's code finds them."""

import pytest
import torch
from problems import experiment, token_batch

from gnflow import trees
from gnflow.compiler import build, methods
from gnflow.compiler.blocks import find_blocks
from gnflow.compiler.devices import explain_limit, require_use
from gnflow.compiler.plan import plan
from gnflow.errors import SpecError
from gnflow.optim.protocol import eager

METHOD = {
    "kind": "gauss_newton",
    "inner": {"kind": "adamw", "learning_rate": 0.01},
    "inner_steps": 3,
    "search": "none",
    "schedule": "constant",
    "warm_start": False,
}
MODEL = {"layers": 12, "width": 8, "heads": 2}


def follow(blocks, points=None, together=None):
    """(The weights before each of two steps, the changes.) With `points` steps begin there; only `together` moves."""
    spec = experiment({**METHOD, "blocks": blocks}, model=MODEL)
    network = build.build_model(spec, "plain")
    if together:
        network = network._replace(frozen=frozenset(network.weights) - set(together))
    optimizer = methods.build_optimizer(spec.optimizer, network, 4, eager)
    objective, params = build.build_objective(network, spec), network.init(0)
    state, befores, changes = optimizer.init(params), [], []
    for number in range(2):
        before = points[number] if points else params
        params, state, _ = optimizer.step(objective, before, state, token_batch(optimizer.microbatches, number))
        befores.append(before)
        changes.append(trees.subtract(params, before))
    return befores, changes


def test_with_prefixes_layer_one_is_solved_for_together_with_ten_and_eleven():
    """{1, 10, 11} reach together what a solve for all weights reaches if those of other blocks are frozen."""
    network = build.build_model(experiment(METHOD, model=MODEL), "plain")
    blocks, together = network.moving_blocks, find_blocks(network, "prefix")["blocks.1"]
    assert {name.split(".")[1] for name in together} == {"1", "10", "11"}
    points, joined = follow("prefix")
    _, apart = follow("layer", points)
    _, alone = follow("full", points, together)
    for number in range(2):
        for block, names in blocks.items():
            same = all(torch.equal(apart[number][name], joined[number][name]) for name in names)
            assert same == (block != "blocks.1"), (block, number)
        found, expected, other = (trees.pick(each[number], blocks["blocks.1"]) for each in (joined, alone, apart))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert trees.norm(trees.subtract(found, other)) > 0.01 * trees.norm(found)


def test_up_to_ten_layers_prefixes_change_nothing():
    network = build.build_model(experiment(METHOD, model={**MODEL, "layers": 10}), "plain")
    assert find_blocks(network, "prefix") == find_blocks(network, "layer")


def test_a_plan_counts_the_larger_block_and_several_devices_are_refused():
    apart, joined = (plan(experiment({**METHOD, "blocks": kind}, model=MODEL)) for kind in ("layer", "prefix"))
    assert joined.flops > apart.flops
    require_use(apart, 2)
    with pytest.raises(SpecError, match="set `blocks: layer` to use several"):
        require_use(joined, 2)
    assert explain_limit(joined).startswith("at most one")


def test_a_warm_start_is_refused():
    with pytest.raises(ValueError, match="set `warm_start: false`"):
        experiment({**METHOD, "blocks": "prefix", "warm_start": True})
    with pytest.raises(ValueError, match="set `warm_start: false`"):
        experiment({"kind": "gauss_newton", "blocks": "prefix"})
