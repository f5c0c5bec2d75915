"""Trace the learning rates of a plan, update by update, for each part that has one."""

from typing import NamedTuple

import torch

from gnflow.compiler.pace import find_schedule, set_pace
from gnflow.compiler.plan import Plan
from gnflow.compiler.routing import label_rules
from gnflow.spec.horizon import count_updates
from gnflow.spec.optimizer import ConjugateGradients, GaussNewton

STRETCHES = 48
MOST = 2**20
"""The most updates that are looked at. In a longer run they are evenly spaced, from the first to the last."""


class Course(NamedTuple):
    """The learning rate of one part over all updates."""

    rule: str
    """The label of the part in the parameter table."""
    method: str
    schedule: str
    first: float
    peak: float
    last: float
    means: tuple[float, ...]
    """The mean rate of each of at most STRETCHES equal stretches of the run."""


def trace_rates(planned: Plan) -> list[Course]:
    """Return the courses of all parts that own parameters, in the order of the table.

    A rule without a rate has none.
    """
    optimizer = planned.experiment.optimizer
    method = optimizer.inner if isinstance(optimizer, GaussNewton) else optimizer
    if isinstance(method, ConjugateGradients):
        return []
    rules = label_rules(method)
    pace, updates = set_pace(optimizer, planned.steps), count_updates(optimizer, planned.steps)
    counts = torch.linspace(0, updates - 1, min(updates, MOST), dtype=torch.float64).round().long()
    courses = []
    for label in dict.fromkeys(row.rule for row in planned.parameters if row.rule in rules):
        rule = rules[label]
        if rule.shown_rate is None:
            continue
        rates = rule.shown_rate * pace(rule)(counts)
        means = tuple(part.mean().item() for part in rates.tensor_split(min(STRETCHES, len(rates))))
        kind = find_schedule(optimizer, rule).kind
        courses.append(
            Course(label, rule.kind, kind, rates[0].item(), rates.max().item(), rates[-1].item(), means)
        )  # fmt: skip
    return courses
