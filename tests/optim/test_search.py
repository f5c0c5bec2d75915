"""What a search decides stays on the device, and what it is handed is one model and one loss."""

import pytest
import torch
from problems import experiment, token_batch
from torch.utils._python_dispatch import TorchDispatchMode

from gnflow import trees
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as build
from gnflow.objective import Objective
from gnflow.optim.damping import add_damping
from gnflow.optim.search import GeometricSearch

SEARCHES = {
    "geometric": {"kind": "geometric", "trials": 3, "microbatches": 2},
    "reused": {"kind": "geometric", "trials": 3, "microbatches": 2, "fresh": False},
    "bracket": {"kind": "bracket", "microbatches": 2},
    "decrement": {"kind": "decrement", "microbatches": 2},
    "adaptive": {"kind": "decrement", "microbatches": 2, "adaptive": True},
    "none": "none",
}
INNER = {
    "muon": {"inner": "muon", "inner_steps": 3, "damping": 1.0},
    "cg": {"inner": {"kind": "cg", "iterations": 4, "microbatches": 2}, "inner_steps": 1},
    "layerwise": {"inner": "adamw", "inner_steps": 3, "blocks": "layer"},
}


class Reads(TorchDispatchMode):
    """Counts the operations in which the host waits for a number."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::equal"):
            self.found.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("search", SEARCHES)
def test_a_step_reads_nothing_on_the_host(search, inner):
    method = {"kind": "gauss_newton", "search": SEARCHES[search], **INNER[inner]}
    program = build(plan(experiment(method)), compiled=False)
    state = program.init(program.initial())
    for step in range(2):
        with Reads() as reads:
            state, _ = program.step(state, token_batch(program.plan.microbatches, step))
        assert not reads.found


def test_a_read_would_be_noticed():
    with Reads() as reads:
        torch.arange(3.0)[torch.tensor(1)]
    assert reads.found


def quartic():
    """The loss w^4 and the model w^2 around any anchor."""

    def curved(params, anchor, tokens):
        return {"w": 2 * params["w"]}, params["w"] ** 2

    return Objective(
        lambda params, tokens: params["w"] ** 4,
        lambda params, tokens: ({"w": 4 * params["w"] ** 3}, params["w"] ** 4),
        curved,
        lambda direction, anchor, tokens: trees.scale(direction, 2),
    )


def test_the_value_of_a_model_is_that_of_which_its_gradient_is_the_slope():
    anchor, at, tokens = {"w": torch.tensor(1.0)}, {"w": torch.tensor(2.0)}, torch.zeros(1, 2)
    model = quartic().build_model(anchor)
    assert (model.value(at, tokens), model.gradient(at, tokens)) == (4, ({"w": 4}, 4))
    # w^2 + (w - 1)^2 / 2
    with_damping = add_damping(model, anchor, torch.tensor(1.0))
    assert (with_damping.value(at, tokens), with_damping.gradient(at, tokens)) == (4.5, ({"w": 5}, 4.5))
    assert with_damping.product(at, tokens) == {"w": 6}


def test_a_promise_is_that_of_the_model_without_its_damping():
    anchor, goal, batch = {"w": torch.tensor(2.0)}, {"w": torch.tensor(1.0)}, torch.zeros(1, 1, 2)
    model = add_damping(quartic().build_model(anchor), anchor, torch.tensor(100.0))
    found = GeometricSearch(1, 1)(quartic(), model, anchor, goal, batch, {}).metrics
    assert found["gn/predicted_decrease"] == 16 - 1
    assert found["gn/actual_decrease"] == 16 - 1
