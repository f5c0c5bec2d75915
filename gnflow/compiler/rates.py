"""The learning rates of a plan, update by update, for each part that has a schedule to follow."""

from typing import NamedTuple

import torch

from gnflow.compiler.pace import set_pace
from gnflow.compiler.plan import Plan
from gnflow.spec.horizon import count_updates
from gnflow.spec.optimizer import ConjugateGradients, GaussNewton, MethodOfMatrices
from gnflow.spec.rules import FirstOrder

STRETCHES = 48
MOST = 2**20
"""Updates that are looked at; of a longer run they are evenly spaced, the first and the last among them."""


class Course(NamedTuple):
    """How the learning rate of one part runs through all updates."""

    rule: str
    """What the parameter table calls the part."""
    method: str
    schedule: str
    first: float
    peak: float
    last: float
    means: tuple[float, ...]
    """The mean rate of each of at most STRETCHES equal stretches of the run."""


def trace_rates(planned: Plan) -> list[Course]:
    """The courses of all parts that own parameters, in the order of the table. A rule without a rate has none."""
    optimizer = planned.experiment.optimizer
    method = optimizer.inner if isinstance(optimizer, GaussNewton) else optimizer
    if isinstance(method, ConjugateGradients):
        return []
    rules: dict[str, FirstOrder] = {f"rules.{i}": rule.use for i, rule in enumerate(method.rules)}
    rules[method.kind] = method
    if isinstance(method, MethodOfMatrices):
        rules["others"] = method.others
    pace, updates = set_pace(optimizer, planned.steps), count_updates(optimizer, planned.steps)
    counts = torch.linspace(0, updates - 1, min(updates, MOST), dtype=torch.float64).round().long()
    courses = []
    for label in dict.fromkeys(row.rule for row in planned.parameters if row.rule in rules):
        rule = rules[label]
        if rule.shown_rate is None:
            continue
        rates = rule.shown_rate * pace(rule)(counts)
        means = tuple(part.mean().item() for part in rates.tensor_split(min(STRETCHES, len(rates))))
        schedule = getattr(rule, "schedule", None) if rule is not method else None
        kind = (schedule or optimizer.schedule).kind
        courses.append(
            Course(label, rule.kind, kind, rates[0].item(), rates.max().item(), rates[-1].item(), means)
        )  # fmt: skip
    return courses
