"""Compiled regions: equal to eager with two sets of weights, one graph each, no recompilation over ten steps."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from problems import experiment, noise, token_batch
from torch.utils._python_dispatch import TorchDispatchMode

from gnflow import trees
from gnflow.compiler.build import build_model, build_objective
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as build
from gnflow.compiler.program import place
from gnflow.errors import EnvironmentProblem

INNER = {"kind": "muon", "learning_rate": 0.02, "others": {"kind": "adamw", "learning_rate": 0.01}}
SEARCH = {"kind": "geometric", "trials": 3, "microbatches": 2}
OPTIMIZERS = {
    "adamw": {"kind": "adamw", "microbatches": 2, "clip": 1.0, "schedule": {"kind": "cosine", "warmup": 2}},
    "muon": {**INNER, "microbatches": 2},
    "gauss_newton": {"kind": "gauss_newton", "inner": INNER, "inner_steps": 3, "search": SEARCH},
    "prox_linear": {
        "kind": "gauss_newton",
        "objective": "prox_linear",
        "inner": "adamw",
        "inner_steps": 2,
        "search": "none",
        "warm_start": False,
    },
}
OPTIMIZERS["layerwise"] = {**OPTIMIZERS["gauss_newton"], "blocks": "layer"}
WIDE = {"layers": 1, "width": 128, "heads": 2}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def run(program, steps=10):
    state, history = program.init(program.initial()), []
    for step in range(steps):
        state, metrics = program.step(state, token_batch(program.plan.microbatches, step))
        history.append({name: value.item() for name, value in metrics.items()})
    return state, history


@pytest.mark.parametrize("name", ["muon", pytest.param("layerwise", marks=pytest.mark.faults)])
def test_ten_steps_compiled_equal_ten_steps_eager_with_one_graph_for_each_region(name):
    planned = plan(experiment(OPTIMIZERS[name], training={"steps": 10}))
    compiled, eager = build(planned), build(planned, compiled=False)
    state, history = run(compiled)
    expected, eager_history = run(eager)
    assert set(compiled.count_graphs().values()) == {1}
    assert eager.count_graphs() == {}
    assert compiled.sum_compile_seconds() > 0
    assert state.step == expected.step == 10
    for ours, theirs in zip(history, eager_history, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3, abs=2e-3)
    for key, tensor in trees.name_tensors(expected.params).items():
        torch.testing.assert_close(state.params[key], tensor, rtol=5e-2, atol=5e-3)


@pytest.mark.parametrize("region", ["value", "gradient", "curved"])
def test_a_compiled_region_follows_its_parameters(region):
    """The trap of a compiled closure that keeps the weights it first saw: two different sets, twice each."""
    planned = plan(experiment(OPTIMIZERS["gauss_newton"]))
    compiled, eager = build(planned).objective, build(planned, compiled=False).objective
    program = build(planned, compiled=False)
    first = program.initial()
    second = trees.move_along(first, noise(first, 5), 0.3)
    anchors = {"curved": [(trees.clone(second),), (trees.clone(first),)]}.get(region, [(), ()])
    tokens = token_batch(1)[0]
    results = []
    for _ in range(2):
        for params, anchor in zip((first, second), anchors, strict=True):
            ours = getattr(compiled, region)(params, *anchor, tokens)
            torch.testing.assert_close(ours, getattr(eager, region)(params, *anchor, tokens), rtol=2e-4, atol=1e-5)
            results.append(ours if region == "value" else ours[1])
    assert not torch.allclose(results[0], results[1], atol=1e-3)


@pytest.mark.parametrize("which", [-1, *(pytest.param(n, marks=pytest.mark.faults) for n in range(2))])
def test_the_gradient_of_a_block_follows_its_parameters_and_the_anchor(which):
    """The block of the head here, and all others with `make faults`."""
    planned = plan(experiment(OPTIMIZERS["layerwise"], model=WIDE))
    assert len(planned.blocks) == 3
    compiled, plain = build(planned), build(planned, compiled=False)
    first = plain.initial()
    second = trees.move_along(first, noise(first, 5), 0.3)
    block, values = list(planned.blocks.values())[which], []
    for params, anchor in ((first, trees.clone(second)), (second, trees.clone(first))) * 2:
        own = trees.pick(params, block.names)
        ours = compiled.objective.curved(own, anchor, token_batch(1)[0])
        expected = build_whole(planned).curved(own, anchor, token_batch(1)[0])
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)
        values.append(ours[1])
    assert not torch.allclose(values[0], values[1], atol=1e-3)
    assert set(compiled.count_graphs().values()) == {1}


def build_whole(planned):
    """The objective without any choice of regions."""
    return build_objective(build_model(planned.experiment, planned.attention), planned.experiment)


def test_a_region_compiled_more_often_than_allowed_stops_the_run():
    """A budget of breaks is no budget of recompilations; a budget of these tolerates them."""
    recompiled = r"region `embed.keep` has 1 recompilations; compile.max_recompiles allows 0"
    for budget, outcome in (
        ({"max_graph_breaks": 3}, pytest.raises(EnvironmentProblem, match=recompiled)),
        ({"max_recompiles": 1}, nullcontext()),
    ):
        program = build(plan(experiment(OPTIMIZERS["muon"] | {"microbatches": 1}, compile=budget)))
        state, _ = program.step(program.init(program.initial()), token_batch(1))
        with outcome:
            program.step(state, token_batch(1, rows=3))
    assert program.count_graphs()["apply_block.keep"] == 2


def test_mode_off_compiles_nothing():
    program = build(plan(experiment({"kind": "adamw"}, compile={"mode": "off"})))
    program.step(program.init(program.initial()), token_batch(1))
    assert program.count_graphs() == {}


def test_the_template_has_the_form_of_a_state():
    for optimizer in OPTIMIZERS.values():
        program = build(plan(experiment(optimizer)), compiled=False)
        state, template = program.init(program.initial()), program.make_template()
        form = [{n: (t.shape, t.dtype) for n, t in trees.name_tensors(s.optimizer).items()} for s in (state, template)]
        assert form[0] == form[1]
        assert set(state.params) == set(template.params)


@pytest.mark.parametrize("logits", [2**25, 257], ids=["whole", "in pieces"])
def test_bfloat16_is_for_passes_and_values_stay_in_float32(logits, monkeypatch):
    monkeypatch.setattr("gnflow.compiler.build.LOGITS", logits)
    full, reduced = (
        build(plan(experiment(OPTIMIZERS["gauss_newton"], training={"precision": p})), compiled=False).objective
        for p in ("float32", "bfloat16")
    )
    params = build_model(experiment(OPTIMIZERS["gauss_newton"]), "plain").init(0)
    moved, tokens = trees.move_along(params, noise(params, 1), 0.01), token_batch(1)[0]
    for slope, rounded in (
        (full.gradient(params, tokens)[0], reduced.gradient(params, tokens)[0]),
        (full.curved(moved, params, tokens)[0], reduced.curved(moved, params, tokens)[0]),
        (full.product(moved, params, tokens), reduced.product(moved, params, tokens)),
    ):
        assert 0 < trees.norm(trees.subtract(slope, rounded)) < 0.03 * trees.norm(slope)
    assert torch.equal(full.value(params, tokens), reduced.value(params, tokens))
    values = [each.build_model(params).value(moved, tokens) for each in (full, reduced)]
    assert torch.equal(*values)


def test_evaluation_is_the_mean_over_the_held_out_microbatches():
    program = build(plan(experiment({"kind": "adamw"})), compiled=False)
    state, batch = program.init(program.initial()), token_batch(3)
    losses = [program.objective.value(state.params, tokens) for tokens in batch]
    found = program.evaluate(program.make_moment(state, batch))
    torch.testing.assert_close(found["loss/held_out"], torch.stack(losses).mean())


def test_the_recorded_learning_rate_is_that_of_the_main_rule():
    cosine = {"kind": "muon", "learning_rate": 0.5, "clip": 1.0, "schedule": "cosine"}
    _, history = run(build(plan(experiment(cosine, training={"steps": 4})), compiled=False), steps=4)
    assert [row["learning_rate"] for row in history] == pytest.approx([0.5, 0.4268, 0.25, 0.0732], abs=1e-4)
    solver = {"kind": "gauss_newton", "inner": INNER, "inner_steps": 3, "search": SEARCH}
    _, history = run(build(plan(experiment(solver)), compiled=False), steps=2)
    assert [row["learning_rate"] for row in history] == pytest.approx([0.02, 0.02])


@pytest.mark.parametrize("name", ["adamw", "prox_linear", "layerwise"])
def test_a_run_within_a_budget_of_activations_takes_the_same_steps(name):
    model, training = {"layers": 3, "width": 16, "heads": 2}, {"rows": 20 if name == "adamw" else 14}
    free, tight = (
        plan(experiment(OPTIMIZERS[name], model=model, training=training, compile={"mode": "off", **budget}))
        for budget in ({}, {"activations": 1})
    )
    assert (free.recomputed, tight.recomputed) == (False, True)
    (state, history), (again, history_again) = (run(build(planned), steps=2) for planned in (free, tight))
    for ours, theirs in zip(history_again, history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    torch.testing.assert_close(again.params, state.params, rtol=1e-4, atol=1e-5)


class Moved(TorchDispatchMode):
    """Notes how many numbers go from the CPU to another device at a time."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and result.is_meta and not args[0].is_meta:
            self.sizes.append(result.numel())
        return result


@pytest.mark.parametrize(
    "method",
    [
        {"kind": "adamw", "microbatches": 3},
        {"kind": "fop_soap", "microbatches": 4},
        {"kind": "ml_fop_soap", "microbatches": 4, "leaves": 4},
        OPTIMIZERS["gauss_newton"],
        OPTIMIZERS["layerwise"],
        {**OPTIMIZERS["gauss_newton"], "search": {"kind": "decrement", "microbatches": 2}},
        {**OPTIMIZERS["gauss_newton"], "search": "bracket", "inner_steps": 9},
        {**OPTIMIZERS["gauss_newton"], "inner": {"kind": "cg", "microbatches": 3}, "inner_steps": 1},
    ],
)
def test_a_batch_goes_to_the_device_one_micro_batch_at_a_time(method):
    """The device is here one without memory; the batch stays on the CPU."""
    planned = plan(experiment(method))
    device = torch.device("meta")
    there = place(build_whole(planned), device)
    program = replace(build(planned, compiled=False), objective=there, device=device)
    state = program.init(trees.map_tensors(lambda w: w.to("meta"), program.initial()))
    batch = token_batch(program.plan.microbatches)
    with Moved() as moved:
        after, metrics = program.step(state, batch)
    assert set(moved.sizes) <= {batch[0].numel(), *range(9)}, "micro-batches, and numbers such as step lengths"
    assert moved.sizes.count(batch[0].numel()) >= len(batch)
    assert all(tensor.is_meta for tensor in [*after.params.values(), *metrics.values()])
