"""The rule that a part of the parameters follows, its optional schedule, and the choice of the part by name."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated

from pydantic import Field, field_validator

from gnflow.spec.base import Rate, Spec, mark_later, refuse
from gnflow.spec.open import Open
from gnflow.spec.rules import AdamWRule, FirstOrder
from gnflow.spec.schedules import RunSchedule, Schedule
from gnflow.spec.tree import KeyPath


class Part(FirstOrder):
    """A rule for a part of the parameters."""

    schedule: Annotated[Schedule | None, mark_later(None)] = None
    """Factor on the learning rate of these parameters alone. Default: the schedule of the method."""
    clip: Annotated[Rate | None, mark_later(None)] = None
    """Largest norm of the gradient of these parameters, which are then clipped apart from all others. Default: they
    share the method's `clip`."""


class AdamWPart(Part, AdamWRule):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""


@cache
def make_part(rule: type[FirstOrder]) -> type[Part]:
    """Return the class of a part that follows this rule: it has the fields of the rule and a schedule."""
    if issubclass(rule, Part):
        return rule
    if rule is AdamWRule:
        return AdamWPart
    made: type[Part] = type(
        f"{rule.__name__}Part", (Part, rule), {"__module__": rule.__module__, "__doc__": rule.__doc__}
    )
    return made


class Rule(Spec):
    """A rule that assigns parameters to a method by name. The first rule that matches wins."""

    match: Annotated[str, Field(min_length=1)]
    """Regular expression that is searched for in the names of parameters."""
    use: Annotated[Part, Open("optimizers", seen_as=make_part)]
    """The method for these parameters."""

    @field_validator("match")
    @classmethod
    def _require_regular_expression(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise refuse(f"this is not a regular expression: {error}") from None
        return pattern


def list_own_schedules(rules: Iterable[Rule], others: Part | None) -> Iterator[tuple[KeyPath, RunSchedule]]:
    """Yield the schedules of the parts of a method that have one, each with the keys that lead to it."""
    for index, rule in enumerate(rules):
        if rule.use.schedule is not None:
            yield ("rules", index, "use", "schedule"), rule.use.schedule
    if others is not None and others.schedule is not None:
        yield ("others", "schedule"), others.schedule
