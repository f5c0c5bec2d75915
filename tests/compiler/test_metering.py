"""What the plan counts on the meta device is what a real step does."""

from collections import Counter

import pytest
import torch
from problems import experiment, token_batch

from gnflow.compiler.metering import Meter
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as build
from gnflow.compiler.shortcut import Shortcut
from gnflow.compiler.storages import Storages, count_bytes
from gnflow.spec.optimizer import GaussNewton

SEARCH = {"kind": "geometric", "trials": 3, "microbatches": 2}
SOLVED = {"kind": "gauss_newton", "inner": "muon", "inner_steps": 3, "search": SEARCH}
CG = {"kind": "cg", "microbatches": 2, "iterations": 4}
OFTEN = {"precondition_frequency": 1}
OPTIMIZERS = {
    "adamw": {"kind": "adamw", "microbatches": 2},
    "muon": {"kind": "muon", "microbatches": 2},
    "rmnp": {"kind": "rmnp"},
    "clipped": {"kind": "muon", "clip": 1.0},
    "soap": {"kind": "soap", "microbatches": 2, **OFTEN},
    "fop_soap": {"kind": "fop_soap", "microbatches": 4, **OFTEN},
    "ml_fop_soap": {"kind": "ml_fop_soap", "microbatches": 4, "leaves": 4, **OFTEN},
    "with muon": SOLVED,
    "with soap": {**SOLVED, "inner": {"kind": "soap", **OFTEN}},
    "with cg": {**SOLVED, "inner": CG, "inner_steps": 1},
    "with preconditioned cg": {**SOLVED, "inner": {**CG, "preconditioner": "soap"}, "inner_steps": 1},
    "newton": {**SOLVED, "objective": "newton"},
    "layerwise": {**SOLVED, "blocks": "layer"},
    "averaged": {**SOLVED, "average": 0.7},
    "cold": {**SOLVED, "warm_start": False, "inner_state": "reset"},
    "damped": {**SOLVED, "damping": 1.0},
    "no search": {**SOLVED, "search": "none"},
    "bracket": {**SOLVED, "search": {"kind": "bracket", "microbatches": 2}},
    "reused": {**SOLVED, "search": {**SEARCH, "fresh": False}},
    "decrement": {**SOLVED, "search": {"kind": "decrement", "microbatches": 2, "adaptive": True}},
}

REFRESHED = ("soap", "fop_soap", "ml_fop_soap")
# One of each kind; `make faults` has them all.
SOME = ("adamw", "clipped", "ml_fop_soap", "with muon", "with preconditioned cg", "newton", "layerwise", "no search")


def planned(name):
    # torch's unfused attention is what runs on the meta device, whatever the kernel.
    return plan(
        experiment(OPTIMIZERS[name], model={"layers": 2, "width": 32, "heads": 2}, compile={"attention": "plain"})
    )


def peak(program, steps=3):
    """The most bytes that were alive in an eager step on the CPU: refreshes differ from the first to later ones."""
    state, most = program.init(program.initial()), 0
    for step in range(steps):
        batch = token_batch(program.plan.microbatches, step)
        storages = Storages()
        storages.hold((state, batch))
        with storages:
            after, _ = program.step(state, batch)
        most, state = max(most, storages.peak.total), after
        del after
    return most


@pytest.mark.parametrize(
    "name", [name if name in SOME else pytest.param(name, marks=pytest.mark.faults) for name in OPTIMIZERS]
)
def test_the_memory_of_a_plan_is_what_an_eager_step_holds_at_its_peak(name):
    """The plan counts one step that refreshes and copies the weights. In a run only the first step copies them."""
    found = planned(name)
    most = peak(build(found, compiled=False)) + (found.memory["parameters"] if name in REFRESHED else 0)
    assert sum(found.memory.values()) == pytest.approx(most, rel=0.05)
    assert set(found.memory) == {"parameters", "optimizer", "batch", "activations", "copies"}
    assert all(size >= 0 for size in found.memory.values())


def test_every_kind_of_search_is_among_them():
    kinds = {each["search"] if isinstance(each["search"], str) else each["search"]["kind"] for each in solved()}
    spec = GaussNewton.model_json_schema()["$defs"]
    assert kinds == {spec[name]["properties"]["kind"]["const"] for name in spec if name.endswith("Search")} | {
        spec["Decrement"]["properties"]["kind"]["const"]
    }


def solved():
    return [each for each in OPTIMIZERS.values() if "search" in each]


def test_on_another_device_than_the_batch_there_is_one_micro_batch():
    found = planned("muon")
    assert found.memory["batch"] == count_bytes(token_batch(2))
    elsewhere = plan(experiment(OPTIMIZERS["muon"], training={"device": "cuda"}))
    assert elsewhere.memory["batch"] == count_bytes(token_batch(1))


def test_gauss_newton_holds_its_point_and_no_further_copy_of_the_weights():
    """Beside the point: the weights, a gradient as it is and stacked, and the state that Muon's update returns."""
    for name in ("with muon", "cold", "no search", "bracket"):
        found = planned(name)
        momentum = found.memory["optimizer"] - found.memory["parameters"]
        trees = 3 if name == "cold" else 2
        assert found.memory["copies"] <= trees * found.memory["parameters"] + momentum + 1e4, name


@pytest.fixture
def meter():
    meter = Meter()
    with meter.storages:
        yield meter


def empty(*shape):
    return torch.empty(shape, device="meta")


def test_a_region_runs_once_and_is_counted_every_time(meter):
    ran = []

    def square(x):
        ran.append(1)
        return x @ x

    region = meter("square", square)
    for _ in range(5):
        assert region(empty(4, 4)).shape == (4, 4)
    assert (len(ran), meter.calls) == (1, {"square": 5})
    assert meter.regions["square"].flops == 2 * 4**3
    assert meter.regions["square"].peak_bytes == 4 * 16


def test_what_stands_for_a_result_shares_storage_as_the_result_did(meter):
    def region(x):
        both = torch.cat([x, x])
        return {"given": x, "view": x[1:], "one": both[:2], "two": both[2:], "both": (both, x + 1)}

    metered, x, later = meter("region", region), empty(2, 3), empty(2, 3)
    first, second = metered(x), metered(later)

    def storages(found):
        parts = [found["given"], found["view"], found["one"], found["two"], *found["both"]]
        keys = [part.untyped_storage()._cdata for part in parts]
        return [keys.index(key) for key in keys], [(part.shape, part.stride(), part.storage_offset()) for part in parts]

    assert storages(first) == storages(second)
    assert second["given"].untyped_storage()._cdata == later.untyped_storage()._cdata


def test_work_that_is_due_once_in_so_many_calls_is_a_part_of_a_call(meter):
    refresh = meter("refresh", lambda x: x @ x, every=10)
    for _ in range(3):
        refresh(empty(2, 2))
    assert meter.calls == {"refresh": pytest.approx(0.3)}


def test_work_around_regions_is_run_once_and_its_regions_are_counted_every_time(meter):
    ran, inside = [], meter("inside", lambda x: x + 1)

    def twice(x):
        ran.append(1)
        return inside(inside(x)), {}

    around, x = meter("around", twice, every=0), empty(3)
    for _ in range(4):
        x, _ = around(x)
    assert (len(ran), meter.calls, meter.counts) == (1, {"inside": 8}, Counter(inside=8, around=4))


def test_regions_inside_work_that_is_due_once_in_so_many_calls_are_parts_of_a_call(meter):
    inside = meter("inside", lambda x: x @ x)
    around, x = meter("around", lambda x: inside(inside(x)), every=-4), empty(3, 3)
    for _ in range(2):
        x = around(x)
    assert (meter.calls, meter.counts) == ({"inside": 1}, Counter(inside=4, around=2))


def test_the_peak_has_the_part_that_a_region_made():
    meter = Meter()
    x = empty(100)
    meter.storages.hold(x)
    with meter.storages:
        region = meter("region", lambda x: (x + 1) + (x + 2))
        for _ in range(2):
            meter.storages.begin()
            copy = x + 0  # outside of the region
            region(copy)
            assert meter.storages.peak == (4 * 500, 4 * 300)
            del copy


def test_a_storage_counts_until_its_last_tensor_is_gone():
    storages = Storages()
    with storages:
        x = torch.zeros(100)
        view = x[:10]
        assert storages.alive == 400
        del x
        assert storages.alive == 400
        del view
        assert storages.alive == 0
    assert storages.peak.total == 400


def test_an_operation_that_returns_its_argument_is_never_remembered_as_a_new_tensor():
    storages = Storages(Shortcut())
    with storages:
        for _ in range(3):
            x = empty(4, 4)
            same = torch.ops.aten._unsafe_view(x, [16])
            assert same.untyped_storage()._cdata == x.untyped_storage()._cdata
            y = x + 1
            assert storages.alive == 2 * 64
            del x, y, same
        one, whole = empty(2).mul(2), torch.empty(2, dtype=torch.int64, device="meta").mul(2)
        assert (one.dtype, whole.dtype) == (torch.float32, torch.int64)
