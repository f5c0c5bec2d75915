"""Make the factors on learning rates from a spec: each rule follows its own schedule, or else that of its method."""

from collections.abc import Callable
from typing import TypeAlias, assert_never

from gnflow.errors import SpecError
from gnflow.optim import schedules
from gnflow.spec import schedules as spec
from gnflow.spec.horizon import count_updates, find_misfits
from gnflow.spec.optimizer import GaussNewton, Optimizer
from gnflow.spec.parts import Part
from gnflow.spec.rules import FirstOrder
from gnflow.spec.span import measure
from gnflow.spec.tree import join_path

Pace: TypeAlias = Callable[[FirstOrder], schedules.Schedule]
"""A function from a rule to the factors on its learning rate."""


def set_pace(method: Optimizer, steps: int) -> Pace:
    """Return the pace of an optimizer in a run of so many steps. Inside Gauss-Newton all inner updates are counted."""
    updates = count_updates(method, steps)
    inner_steps = method.inner_steps if isinstance(method, GaussNewton) else 1

    def make_rule_schedule(rule: FirstOrder) -> schedules.Schedule:
        return make_schedule(find_schedule(method, rule), updates, inner_steps)

    return make_rule_schedule


def find_schedule(method: Optimizer, rule: FirstOrder) -> spec.AnySchedule:
    """Return the schedule that a rule follows: its own, or else that of the method."""
    own = rule.schedule if isinstance(rule, Part) else None
    return own or method.schedule


def require_fit(method: Optimizer, steps: int) -> None:
    """Raise SpecError for a warm-up or a decay that is longer than a run of so many steps.

    A spec that names its steps is refused when it is checked; the steps of one that names its tokens are known here.
    """
    for path, why in find_misfits(method, steps):
        raise SpecError(f"optimizer.{join_path(path)}: {why}")


def make_schedule(schedule: spec.AnySchedule, updates: int, inner_steps: int = 1) -> schedules.Schedule:
    """Return the factors of one schedule over so many updates, `inner_steps` of them in one step of the run."""
    match schedule:
        case spec.Constant(warmup=warmup, warmup_from=first):
            return schedules.constant(measure(warmup, updates), first)
        case spec.Cosine() | spec.GlobalCosine():
            warmup, first = measure(schedule.warmup, updates), schedule.warmup_from
            return schedules.cosine(updates, warmup, schedule.final, first)
        case spec.Linear(warmup=warmup, warmup_from=first, final=final):
            return schedules.linear(updates, measure(warmup, updates), final, first)
        case spec.Wsd(warmup=warmup, warmup_from=first, decay=decay, shape=shape, power=power, final=final):
            spans = measure(warmup, updates), measure(decay, updates)
            return schedules.wsd(updates, *spans, shape, power or 1.0, final, first)
        case spec.InnerCosine(final=final):
            return schedules.inner_cosine(inner_steps, updates // inner_steps, final)
        case spec.ConstantWithInnerCosine(final=final):
            return schedules.constant_with_inner_cosine(inner_steps, final)
        case _:
            assert_never(schedule)
