"""What several devices are predicted to need, and what keeps them from being faster."""

import pytest
from crew_work import SOLVERS, small

from gnflow.compiler.devices import measure_memory
from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.scaling import predict

GAUSS_NEWTON = {"kind": "gauss_newton", "inner_steps": 2, "search": "none"}


def planned(update: str = "stacks", **optimizer: object) -> Plan:
    return plan(small({**GAUSS_NEWTON, "inner": SOLVERS["soap"], **optimizer}, update=update))


def test_one_device_is_one_device() -> None:
    found = predict(planned(), 1)
    assert (found.efficiency, found.sent, found.limit) == (1, 0, "")


def test_updates_that_all_devices_make_are_named_as_the_limit_and_parts_lift_it() -> None:
    stacks, parts = predict(planned(), 4), predict(planned("parts"), 4)
    assert "updates, which each device makes in full; `compile.update: parts` shares them" in stacks.limit
    assert parts.efficiency > 1.3 * stacks.efficiency
    assert parts.flops < stacks.flops


def test_messages_count_once_their_bandwidth_is_known() -> None:
    without, with_them = predict(planned("parts"), 4, rate=1e9), predict(planned("parts"), 4, 1e9, bandwidth=1e6)
    assert without.seconds == pytest.approx(without.flops / 1e9)
    assert with_them.seconds == pytest.approx(without.seconds + with_them.sent / 1e6)
    assert with_them.limit.startswith("messages (")


def test_micro_batches_that_do_not_divide_are_the_limit_of_adamw() -> None:
    found = predict(plan(small({"kind": "adamw", "microbatches": 4})), 3)
    assert found.limit.startswith("4 micro-batches of a mean on 3 devices")
    assert found.efficiency == pytest.approx(4 / (3 * 2), rel=0.02)


def test_the_state_is_divided_among_the_owners_of_parts() -> None:
    whole, (alone,), four = planned("parts"), measure_memory(planned("parts"), 1), measure_memory(planned("parts"), 4)
    assert alone == {**whole.memory, "exchange": 0}
    states = sum(part.state for part in whole.parts.values())
    replicated = whole.memory["optimizer"] - states
    assert sum(each["optimizer"] - replicated for each in four) == states
    assert max(each["optimizer"] for each in four) < 0.5 * whole.memory["optimizer"]
    assert all(each["parameters"] == alone["parameters"] and each["exchange"] > 0 for each in four)
    replicas = measure_memory(planned(), 4)
    assert all(each["optimizer"] == planned().memory["optimizer"] for each in replicas)
