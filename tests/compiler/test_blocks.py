"""The blocks of layerwise Gauss-Newton, as defined here and as the paper's code finds them."""

import pytest
import torch
from problems import experiment, token_batch

from gnflow import trees
from gnflow.compiler import build, methods
from gnflow.compiler.blocks import find_blocks
from gnflow.compiler.devices import require_use
from gnflow.compiler.plan import plan
from gnflow.errors import SpecError
from gnflow.optim.protocol import eager

METHOD = {
    "kind": "gauss_newton",
    "inner": {"kind": "adamw", "learning_rate": 0.01},
    "inner_steps": 3,
    "search": "none",
    "schedule": "constant",
}
MODEL = {"layers": 12, "width": 8, "heads": 2}


def step(blocks):
    """The weights after one step of which no search changes the length, by block."""
    spec = experiment({**METHOD, "blocks": blocks}, model=MODEL)
    network = build.build_model(spec, "plain")
    optimizer = methods.build_optimizer(spec.optimizer, network, 4, eager)
    params = network.init(0)
    batch = token_batch(optimizer.microbatches)
    after, _, _ = optimizer.step(build.build_objective(network, spec), params, optimizer.init(params), batch)
    return {block: trees.pick(trees.subtract(after, params), names) for block, names in network.moving_blocks.items()}


def test_with_prefixes_block_one_is_solved_for_together_with_ten_and_eleven():
    """{1, 10, 11} reach together what a solve for all weights reaches if those of other blocks are frozen."""
    apart, joined = step("layer"), step("prefix")
    assert list(apart) == list(joined)
    for block, update in apart.items():
        same = all(torch.equal(update[name], joined[block][name]) for name in update)
        assert same == (block != "blocks.1"), block

    spec = experiment({**METHOD, "blocks": "full"}, model=MODEL)
    network = build.build_model(spec, "plain")
    together = find_blocks(network, "prefix")["blocks.1"]
    assert {name.split(".")[1] for name in together} == {"1", "10", "11"}
    alone = network._replace(frozen=frozenset(network.weights) - set(together))
    optimizer, params = methods.build_optimizer(spec.optimizer, alone, 4, eager), network.init(0)
    batch = token_batch(optimizer.microbatches)
    after, _, _ = optimizer.step(build.build_objective(alone, spec), params, optimizer.init(params), batch)
    for name, update in joined["blocks.1"].items():
        torch.testing.assert_close(update, after[name] - params[name], rtol=1e-4, atol=1e-6)
    moved = trees.norm(joined["blocks.1"])
    assert trees.norm(trees.subtract(joined["blocks.1"], apart["blocks.1"])) > 0.01 * moved


def test_up_to_ten_layers_prefixes_change_nothing():
    network = build.build_model(experiment(METHOD, model={**MODEL, "layers": 10}), "plain")
    assert find_blocks(network, "prefix") == find_blocks(network, "layer")


def test_a_plan_counts_the_larger_block_and_several_devices_are_refused():
    apart, joined = (plan(experiment({**METHOD, "blocks": kind}, model=MODEL)) for kind in ("layer", "prefix"))
    assert joined.flops > apart.flops
    require_use(apart, 2)
    with pytest.raises(SpecError, match="solves for some weights twice"):
        require_use(joined, 2)
