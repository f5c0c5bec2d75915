"""Schedules of a spec over the updates of a run: of the method, and of parts that have their own."""

import pytest
import torch
from problems import experiment

from gnflow import trees
from gnflow.compiler.pace import make_schedule, require_fit, set_pace
from gnflow.compiler.plan import plan
from gnflow.errors import SpecError
from gnflow.optim.protocol import eager
from gnflow.spec.horizon import list_schedules
from gnflow.spec.schedules import AnySchedule, Constant, Linear, Wsd
from gnflow.verify.problems import build_bowl
from gnflow.verify.subject import Outcome, advance, build_parts

MUON = {"kind": "muon", "learning_rate": 0.02}
WSD = {"kind": "wsd", "warmup": 1, "decay": 0.5, "shape": "sqrt"}
LINEAR = {"kind": "linear", "final": 0.1}
STEPS = 4


def factors(schedule: AnySchedule, updates: int) -> list[float]:
    counts = torch.arange(updates)
    return make_schedule(schedule, updates)(counts).tolist()


def test_a_part_of_the_run_is_so_many_of_its_updates() -> None:
    for updates, warmup, decay in ((50, 5, 20), (7, 1, 3), (1, 0, 0)):
        parts = Wsd(warmup=0.1, decay=0.4)
        assert factors(parts, updates) == factors(Wsd(warmup=warmup, decay=decay), updates)
        assert factors(Constant(warmup=0.1), updates) == factors(Constant(warmup=warmup), updates)
    # Both are rounded up here, and together they would have one update more than the run.
    assert factors(Wsd(warmup=0.5, decay=0.5), 3) == pytest.approx([0.5, 1, 1])


def test_a_rule_has_its_own_factors_or_those_of_the_method() -> None:
    rules = [{"match": "query", "use": {"kind": "adamw", "schedule": WSD}}, {"match": "key", "use": "adamw"}]
    method = experiment({**MUON, "schedule": LINEAR, "others": {"schedule": "constant"}, "rules": rules}).optimizer
    pace, counts = set_pace(method, STEPS), torch.arange(STEPS)
    ruled, unruled = (rule.use for rule in method.rules)
    own = make_schedule(Linear(final=0.1), STEPS)(counts)
    assert torch.equal(pace(method)(counts), own)
    assert torch.equal(pace(unruled)(counts), own)
    assert torch.equal(pace(method.others)(counts), torch.ones(STEPS, dtype=torch.float64))
    assert torch.equal(pace(ruled)(counts), make_schedule(method.rules[0].use.schedule, STEPS)(counts))
    assert [".".join(map(str, path)) for path, _ in list_schedules(method)] == [
        "schedule", "rules.0.use.schedule", "others.schedule",
    ]  # fmt: skip


def test_inside_gauss_newton_all_inner_updates_are_counted() -> None:
    inner = {**MUON, "others": {"schedule": LINEAR}}
    method = experiment({"kind": "gauss_newton", "inner_steps": 3, "inner": inner, "schedule": WSD}).optimizer
    pace, counts = set_pace(method, STEPS), torch.arange(12)
    assert pace(method.inner)(counts).tolist() == factors(method.schedule, 12)
    assert pace(method.inner.others)(counts).tolist() == factors(method.inner.others.schedule, 12)
    assert [path for path, _ in list_schedules(method)] == [("schedule",), ("inner", "others", "schedule")]


@pytest.mark.parametrize("method", ["muon", "gauss_newton"])
def test_a_run_with_two_schedules_is_two_runs_with_one_each(method: str) -> None:
    """On a bowl, where no weight heeds another: the matrices are those of the one run, all else that of the other."""

    def ended(schedule: object, own: dict[str, object]) -> tuple[Outcome, frozenset[str]]:
        inner = {**MUON, "others": {"learning_rate": 0.01, **own}}
        optimizer: dict[str, object] = {**inner, "schedule": schedule}
        if method == "gauss_newton":
            optimizer = {"kind": method, "inner_steps": 2, "inner": inner, "schedule": schedule, "search": "none"}
        small = experiment(optimizer)
        made = build_parts(small, eager)
        start = made.network.init(0)
        slopes = made._replace(objective=build_bowl(trees.zeros(start), 10.0, spread=0.5))
        return advance(small, slopes, start, STEPS), made.network.hidden

    (mixed, hidden), (one, _), (other, _) = ended(WSD, {"schedule": LINEAR}), ended(WSD, {}), ended(LINEAR, {})
    assert mixed.metrics["learning_rate"] == one.metrics["learning_rate"] != other.metrics["learning_rate"]
    for name, weight in mixed.params.items():
        expected, wrong = (one, other) if name in hidden else (other, one)
        assert torch.equal(weight, expected.params[name]), name
        assert not torch.equal(weight, wrong.params[name]), name


def test_a_warm_up_longer_than_a_budget_of_tokens_is_refused_when_the_steps_are_known() -> None:
    tokens = {"steps": None, "tokens": 64.0}
    optimizer = {**MUON, "others": {"schedule": {"kind": "linear", "warmup": 5}}}
    with pytest.raises(
        SpecError, match=r"^optimizer.others.schedule.warmup: a warm-up of 5 updates is longer than the run of 4 "
    ):
        plan(experiment(optimizer, training=tokens))
    require_fit(experiment(optimizer, training=tokens).optimizer, 5)


def test_a_schedule_says_whether_it_looks_ahead() -> None:
    def ahead(schedule: object, kind: str = "adamw") -> bool:
        return experiment({"kind": kind, "schedule": schedule}).optimizer.schedule.looks_ahead

    assert not ahead("constant")
    assert not ahead({"kind": "constant", "warmup": 3})
    assert ahead({"kind": "constant", "warmup": 0.3})
    assert all(map(ahead, ("cosine", "linear", "wsd")))
    assert not ahead("constant_with_inner_cosine", "gauss_newton")
    assert ahead("inner_cosine", "gauss_newton")
