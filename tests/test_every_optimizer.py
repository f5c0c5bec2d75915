"""What every optimizer must do. A new one is a row of OPTIMIZERS."""

import pytest
import torch
from problems import experiment, token_batch

from gnflow import trees
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as build

SEARCH = {"kind": "geometric", "trials": 5, "microbatches": 2}
MUON = {"kind": "muon", "learning_rate": 0.01, "scale": "match_rms", "others": {"kind": "adamw", "learning_rate": 0.01}}
ADAMW = {"kind": "adamw", "learning_rate": 0.01}
SOAP = {"learning_rate": 0.01, "precondition_frequency": 3, "others": ADAMW}
SCHEDULES = ("constant", "global_cosine", "inner_cosine", "constant_with_inner_cosine")

OPTIMIZERS: dict[str, dict[str, object]] = {
    "adamw": {**ADAMW, "microbatches": 2},
    "adamw clipped": {**ADAMW, "clip": 0.5, "weight_decay": 0.1},
    "muon": {**MUON, "microbatches": 2},
    "muon cosine": {**MUON, "schedule": {"kind": "cosine", "warmup": 2}, "nesterov": False},
    "gauss_newton adamw": {"kind": "gauss_newton", "inner": ADAMW, "inner_steps": 4, "search": SEARCH},
    "gauss_newton averaged": {
        "kind": "gauss_newton", "inner": MUON, "inner_steps": 4, "search": SEARCH, "average": 0.5,
    },
    "prox_linear": {
        "kind": "gauss_newton", "objective": "prox_linear", "inner": MUON, "inner_steps": 4, "search": "none",
    },
    "layerwise": {
        "kind": "gauss_newton", "blocks": "layer", "inner": MUON, "inner_steps": 4, "search": SEARCH, "average": 0.5,
    },
    "layerwise soap": {
        "kind": "gauss_newton", "blocks": "layer", "inner": {**SOAP, "kind": "soap", "clip": 1.0}, "inner_steps": 4,
        "search": SEARCH,
    },
    "layerwise fop_soap": {
        "kind": "gauss_newton", "blocks": "layer", "inner": {**SOAP, "kind": "fop_soap"}, "inner_steps": 4,
        "search": SEARCH,
    },
    **{
        f"gauss_newton {schedule}": {
            "kind": "gauss_newton", "inner": MUON, "inner_steps": 4, "search": SEARCH, "schedule": schedule,
        }
        for schedule in SCHEDULES
    },
}  # fmt: skip

pytestmark = pytest.mark.parametrize("name", OPTIMIZERS)


def program(name, steps=12):
    return build(plan(experiment(OPTIMIZERS[name], training={"steps": steps}, compile={"mode": "off"})))


def text(program, step):
    """Tokens with structure: a few short words over and over."""
    batch = token_batch(program.plan.microbatches, step, vocabulary=4)
    return torch.cummax(batch, dim=-1).values


def advance(program, state, steps, first=0):
    for step in range(first, first + steps):
        state, metrics = program.step(state, text(program, step))
    return state, metrics


def test_it_descends(name):
    run = program(name)
    state = run.init(run.initial())
    held_out = text(run, 99)
    before = run.evaluate(state.params, held_out)["loss/held_out"]
    state, _ = advance(run, state, 12)
    assert run.evaluate(state.params, held_out)["loss/held_out"] < before - 0.3


def test_it_is_deterministic_and_resumes_bit_for_bit(name):
    run = program(name)
    whole, _ = advance(run, run.init(run.initial()), 5)
    half, _ = advance(run, run.init(run.initial()), 2)
    kept = trees.clone(trees.named_tensors(half.optimizer))
    again = program(name)
    resumed = half._replace(
        optimizer=trees.with_tensors(again.template().optimizer, kept), params=trees.clone(half.params)
    )
    resumed, _ = advance(again, resumed, 3, first=2)
    for ours, theirs in ((whole.params, resumed.params), (whole.optimizer, resumed.optimizer)):
        expected = trees.named_tensors(theirs)
        assert all(torch.equal(tensor, expected[key]) for key, tensor in trees.named_tensors(ours).items())


def test_types_and_shapes_are_stable(name):
    run = program(name)
    start = run.init(run.initial())
    form = {key: (t.dtype, t.shape) for key, t in trees.named_tensors((start.params, start.optimizer)).items()}
    state, metrics = advance(run, start, 2)
    assert {key: (t.dtype, t.shape) for key, t in trees.named_tensors((state.params, state.optimizer)).items()} == form
    assert all(value.ndim == 0 for value in metrics.values())
    assert {"loss/train", "norm/update", "learning_rate"} <= set(metrics)


def test_it_takes_exactly_the_microbatches_it_declares(name):
    run = program(name)
    seen = []

    def of(region, arguments):
        blocks = run.plan.blocks.values() if region == "curved" else ()
        return next((block.region for block in blocks if set(block.names) == set(arguments[0])), region)

    def noted(region):
        function = getattr(run.objective, region)
        return lambda *arguments: (
            seen.append((of(region, arguments), arguments[-1].data_ptr())),
            function(*arguments),
        )[1]

    objective = type(run.objective)(*(noted(region) for region in run.objective._fields))
    params = run.initial()
    batch = text(run, 0)
    run.optimizer.step(objective, params, run.optimizer.init(params), batch)
    assert {pointer for _, pointer in seen} == {tokens.data_ptr() for tokens in batch}
    counted = {region: sum(1 for r, _ in seen if r == region) for region in {r for r, _ in seen}}
    declared = {
        name: calls for name, calls in run.plan.cost.calls.items() if name.split(".")[0] in run.objective._fields
    }
    assert counted == declared


def test_zero_gradients_leave_finite_weights(name):
    run = program(name)
    params = trees.mapped(torch.zeros_like, run.initial())
    state, _ = run.step(run.init(params), torch.zeros(run.plan.microbatches, 2, 9, dtype=torch.int64))
    assert all(w.isfinite().all() for w in state.params.values())
