"""Schedules of every kind are honoured, and one that does not reach its weights is found."""

import pytest
from problems import experiment

from gnflow.compiler import methods
from gnflow.optim.schedules import constant
from gnflow.verify.schedules import check_schedule
from gnflow.verify.subject import CheckFailed, build_parts, shrink

OTHERS = {"learning_rate": 0.01, "schedule": {"kind": "linear", "warmup": 0.25}}
MUON = {"kind": "muon", "learning_rate": 0.02, "others": OTHERS}
RULES = [{"match": "query.weight", "use": {"kind": "rmnp", "schedule": {"kind": "wsd", "decay": 1, "shape": "cosine"}}}]
WSD = {"kind": "wsd", "warmup": 2, "decay": 0.5}
OPTIMIZERS = {
    "linear": {"kind": "adamw", "learning_rate": 0.01, "schedule": "linear"},
    "wsd": {**MUON, "schedule": {**WSD, "shape": "sqrt"}, "rules": RULES},
    "gauss_newton": {
        "kind": "gauss_newton", "inner_steps": 2, "inner": MUON, "blocks": "layer",
        "schedule": {**WSD, "shape": "power", "power": 1.5},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_honoured(name: str) -> None:
    check_schedule(shrink(experiment(OPTIMIZERS[name])))


def test_a_part_that_does_not_follow_its_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts follow the method's, as they did before they could have one."""
    set_pace = methods.set_pace
    monkeypatch.setattr(methods, "set_pace", lambda method, steps: lambda rule: set_pace(method, steps)(method))
    with pytest.raises(CheckFailed, match="follows `others`, whose own schedule has ended at 0, but still moves"):
        check_schedule(shrink(experiment({**MUON, "others": {}})))


def test_a_method_that_follows_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "set_pace", lambda method, steps: lambda rule: constant())
    with pytest.raises(CheckFailed, match="after a schedule that ends at 0 a step still moves the weights"):
        check_schedule(shrink(experiment(OPTIMIZERS["wsd"])), build_parts)
