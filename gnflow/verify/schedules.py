"""Check that the schedules of a method and of its parts reach the updates of their weights."""

from collections.abc import Callable
from typing import TypeAlias

from gnflow import trees
from gnflow.compiler.routing import route_parameters
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.parts import Part
from gnflow.spec.schedules import AnySchedule, Constant, Cosine, Linear, RunSchedule, Wsd
from gnflow.spec.search import NoSearch
from gnflow.verify.problems import build_on_bowl
from gnflow.verify.subject import Make, advance, build_parts, require

Change: TypeAlias = Callable[[AnySchedule], RunSchedule]
STEPS = 3


def check_schedule(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that nothing moves after a decay to 0, that a constant rate ends elsewhere, and that parts have their own.

    The decay has the kind and shape of the spec's schedule if that decays; else it is a cosine.
    """
    ending, level = (_replace_schedules(experiment, end) for end in (_make_decay, _make_constant))
    made, start = build_on_bowl(ending, make)
    ended = advance(ending, made, start, STEPS)
    whole = trees.norm(trees.subtract(ended.params, start)).item()
    further = advance(ending, made, ended.params, 1, ended.state, STEPS)
    moved = trees.norm(trees.subtract(further.params, ended.params)).item()
    require(
        moved <= 1e-6 * whole,
        f"after a schedule that ends at 0 a step still moves the weights by {moved:.3g}; "
        f"the {STEPS} steps before moved them by {whole:.3g}",
    )
    rate = further.metrics["learning_rate"].item()
    require(rate == 0, f"after a schedule that ends at 0 the recorded learning rate is {rate:.3g}")
    constant = advance(level, *build_on_bowl(level, make), STEPS)
    apart = trees.norm(trees.subtract(constant.params, ended.params)).item()
    require(apart > 1e-3 * whole, f"a decay and a constant rate end {apart:.3g} apart after a way of {whole:.3g}")
    _check_parts(_replace_schedules(experiment, _make_constant, lambda schedule: Linear()), make)


def _check_parts(experiment: Experiment, make: Make) -> None:
    """Check that parts whose own schedules have ended stand still while the method's own weights move.

    There is nothing to check for a method without parts, or for one whose parts own all weights.
    """
    made, start = build_on_bowl(experiment, make)
    method = experiment.optimizer.inner if isinstance(experiment.optimizer, spec.GaussNewton) else experiment.optimizer
    if isinstance(method, spec.ConjugateGradients):
        return
    routes = route_parameters(method, made.network).routes
    if set(routes.values()) <= {method.kind} or method.kind not in routes.values():
        return
    ended = advance(experiment, made, start, STEPS)
    further = advance(experiment, made, ended.params, 1, ended.state, STEPS)
    for name, label in routes.items():
        moved, way = ((further.params[name] - at).norm().item() for at in (ended.params[name], start[name]))
        if label == method.kind:
            require(moved > 0, f"`{name}` follows `{method.kind}` at a constant rate, but does not move")
        else:
            require(
                moved <= 1e-6 * way,
                f"`{name}` follows `{label}`, whose own schedule has ended at 0, but still moves by {moved:.3g}",
            )


def _make_decay(schedule: AnySchedule) -> RunSchedule:
    """Make a decay to 0 over the whole run, of the kind of the schedule."""
    match schedule:
        case Wsd():
            return schedule.model_copy(update={"warmup": 0, "decay": 0.999, "final": 0.0})
        case Linear():
            return Linear()
        case _:
            return Cosine()


def _make_constant(schedule: AnySchedule) -> RunSchedule:
    return Constant()


def _replace_schedules(experiment: Experiment, change: Change, change_part: Change | None = None) -> Experiment:
    """Return the experiment over a few steps with other schedules. Gauss-Newton takes full steps.

    `change_part` makes the schedules of all parts; without it, `change` makes those of the parts that have one.
    """
    method = experiment.optimizer

    def replace_part(old: Part) -> Part:
        if change_part is None and old.schedule is None:
            return old
        return old.model_copy(update={"schedule": (change_part or change)(old.schedule or Constant())})

    def replace_parts(of: spec.Method, **changed: object) -> spec.Method:
        rules = tuple(rule.model_copy(update={"use": replace_part(rule.use)}) for rule in of.rules)
        others = {"others": replace_part(of.others)} if isinstance(of, spec.MethodOfMatrices) else {}
        return of.model_copy(update={"rules": rules, **others, **changed})

    schedule = change(method.schedule)
    if isinstance(method, spec.GaussNewton):
        inner = method.inner if isinstance(method.inner, spec.ConjugateGradients) else replace_parts(method.inner)
        full = {"search": NoSearch(), "warm_start": False, "average": 0.0, "inner_state": "kept"}
        changed: spec.Optimizer = method.model_copy(update={"schedule": schedule, "inner": inner, **full})
    else:
        changed = replace_parts(method, schedule=schedule)
    training = experiment.training.model_copy(update={"steps": STEPS})
    return experiment.model_copy(update={"optimizer": changed, "training": training})
