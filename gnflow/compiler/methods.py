"""Spec -> optimizers and the transforms inside them."""

from collections.abc import Hashable, Iterable
from typing import assert_never

from gnflow.compiler.checked import checked
from gnflow.compiler.routing import routing
from gnflow.models.modality import by_modality
from gnflow.models.model import Model
from gnflow.objective import Scalar
from gnflow.optim import averages, schedules
from gnflow.optim.adaptive_steps import BracketSearch, Decrement
from gnflow.optim.combine import chain, clip_by_global_norm, partition
from gnflow.optim.conjugate_gradients import ConjugateGradients
from gnflow.optim.descent import Descent, Probe
from gnflow.optim.fisher_orthogonal import FisherOrthogonal, Projection
from gnflow.optim.frozen import Frozen
from gnflow.optim.gauss_newton import Block, GaussNewton, Search
from gnflow.optim.hyperball import hyperball
from gnflow.optim.protocol import AnyState, AnyTransform, Jit, Optimizer, Region, Transform
from gnflow.optim.search import FullStep, GeometricSearch
from gnflow.optim.stacks import Stacks
from gnflow.optim.statistics import Statistics, stacks
from gnflow.spec import optimizer as spec
from gnflow.spec import rules
from gnflow.spec import schedules as spec_schedules
from gnflow.spec.factory import built, parameters, who
from gnflow.spec.kinds import origin_of


def optimizer(method: spec.Optimizer, network: Model, steps: int, jit: Jit, probe: Probe | None = None) -> Optimizer:
    """The optimizer of a run of `steps` steps, on what is not frozen."""
    inner = _optimizer(method, network, steps, jit, probe)
    return Frozen(inner, network.moving) if network.frozen else inner


def _optimizer(method: spec.Optimizer, network: Model, steps: int, jit: Jit, probe: Probe | None) -> Optimizer:
    if isinstance(method, spec.GaussNewton):
        blocks = _blocks(method, network, _inner_schedule(method, steps), jit, probe)
        inner, damping, carry = method.inner, method.damping, None
        if isinstance(inner, spec.ConjugateGradients):
            damping, carry = inner.damping, inner.carry
        return GaussNewton(
            blocks,
            method.inner_steps,
            _search(method.search),
            method.warm_start,
            _average(method.average),
            damping,
            carry,
            reset=method.inner_state == "reset",
        )
    return _descent(method, network, _schedule(method.schedule, steps), jit, probe)


def _blocks(
    method: spec.GaussNewton, network: Model, schedule: schedules.Schedule, jit: Jit, probe: Probe | None
) -> dict[str, Block]:
    """One block, or those of the model; the first of each structure lends its regions to the others."""
    if method.blocks == "full":
        return {"all": Block(network.moving, _inner(method.inner, network, schedule, jit, probe, network.moving))}
    blocks: dict[str, Block] = {}
    lenders: dict[Hashable, tuple[Descent | ConjugateGradients, str]] = {}
    for name, names in network.moving_blocks.items():
        structure = _structure(method.inner, network, names)
        if structure not in lenders:
            suffix = f".{name}"
            lenders[structure] = _inner(method.inner, network, schedule, _suffixed(jit, suffix), probe, names), suffix
        lent, suffix = lenders[structure]
        if isinstance(method.inner, spec.Method) and isinstance(lent, Descent):
            lent = lent.over(_stacks(method.inner, network, names))
        blocks[name] = Block(names, lent, suffix)
    return blocks


def _inner(
    method: spec.InnerMethod,
    network: Model,
    schedule: schedules.Schedule,
    jit: Jit,
    probe: Probe | None,
    names: Iterable[str],
) -> Descent | ConjugateGradients:
    if not isinstance(method, spec.ConjugateGradients):
        return _descent(method, network, schedule, jit, probe, names)
    kept = None if method.preconditioner == "none" else Statistics(method.beta, _turned(method, network))
    return ConjugateGradients(method.iterations, method.tolerance, method.microbatches, kept, jit)


def _turned(method: spec.ConjugateGradients, network: Model) -> frozenset[str]:
    """The matrices that are preconditioned in eigenbases of their own."""
    return network.hidden if method.preconditioner == "soap" else frozenset()


def _structure(method: spec.InnerMethod, network: Model, names: Iterable[str]) -> Hashable:
    """What is the same of blocks that share regions."""
    if isinstance(method, spec.ConjugateGradients):
        own = stacks({name: network.weights[name].shape for name in names}, _turned(method, network))
    else:
        own = _stacks(method, network, names)
    return tuple(own.sizes().items())


def _suffixed(jit: Jit, suffix: str) -> Jit:
    def named(name: str, region: Region, /) -> Region:
        return jit(name + suffix, region)

    return named


def _stacks(method: spec.Method, network: Model, names: Iterable[str]) -> Stacks:
    routes = routing(method, network).routes
    return Stacks.by_rule({name: routes[name] for name in names}, {name: network.weights[name].shape for name in names})


def _descent(
    method: spec.Method,
    network: Model,
    schedule: schedules.Schedule,
    jit: Jit,
    probe: Probe | None,
    names: Iterable[str] | None = None,
) -> Descent:
    """Over all parameters, or those named."""
    labels, routes = routing(method, network)
    stacks = _stacks(method, network, routes if names is None else names)
    transforms = {label: transform(rule, schedule) for label, rule in labels.items()}
    if method.matrices:
        # Where matrices have a method of their own, the statistics are its own: published projections are of matrices.
        for label, rule in labels.items():
            if not rule.matrices:
                transforms[label] = transforms[label]._replace(metric=None)
    combined = partition(transforms, stacks.rules())
    clipped = combined if method.clip is None else chain(clip_by_global_norm(method.clip), combined)
    main = method.kind if method.kind in routes.values() else next(iter(routes.values()))

    def main_rate(state: AnyState) -> Scalar:
        """The rate of the method's own rule at this update."""
        part = (state if method.clip is None else state[-1])[main]
        return part.learning_rate * schedule(part.updates)  # type: ignore[no-any-return]  # each rule has its own state

    rate = main_rate if main in stacks.rules().values() else None
    # A block without matrices has nothing to project.
    if isinstance(method, spec.Projected) and (names is None or clipped.metric is not None):
        return FisherOrthogonal(
            clipped,
            stacks,
            method.microbatches,
            jit,
            rate,
            probe,
            leaves=2 if method.by_modality else method.leaves,
            projection=Projection(method.beta, method.beta_bound, method.damping, method.metric),
            statistics=method.statistics,
            second_moment=method.second_moment,
            layer_step=method.layer_step,
            parts=by_modality if method.by_modality else None,
        )
    return Descent(clipped, stacks, method.microbatches, jit, rate, probe)


def transform(rule: rules.FirstOrder, schedule: schedules.Schedule) -> AnyTransform:
    """The transform of one rule. Raises EnvironmentProblem for a plug-in whose factory does not make one."""
    made = built(rule, Transform, **parameters(rule), schedule=schedule)
    found = checked(made, who(rule)) if origin_of(type(rule)) else made
    return hyperball(found, schedule) if isinstance(rule, rules.MatrixMethod) and rule.hyperball else found


def _schedule(schedule: spec_schedules.Schedule, updates: int) -> schedules.Schedule:
    match schedule:
        case spec_schedules.Constant(warmup=warmup):
            return schedules.constant(warmup)
        case spec_schedules.Cosine(warmup=warmup, final=final):
            return schedules.cosine(updates, warmup, final)
        case _:
            assert_never(schedule)


def _inner_schedule(method: spec.GaussNewton, steps: int) -> schedules.Schedule:
    match method.schedule:
        case spec_schedules.Constant(warmup=warmup):
            return schedules.constant(warmup)
        case spec_schedules.GlobalCosine(warmup=warmup, final=final):
            return schedules.cosine(steps * method.inner_steps, warmup, final)
        case spec_schedules.InnerCosine(final=final):
            return schedules.inner_cosine(method.inner_steps, steps, final)
        case spec_schedules.ConstantWithInnerCosine(final=final):
            return schedules.constant_with_inner_cosine(method.inner_steps, final)
        case _:
            assert_never(method.schedule)


def _average(average: float | spec.Ema) -> averages.Average:
    return averages.faded(average.decay) if isinstance(average, spec.Ema) else averages.last(average)


def _search(search: spec.Search) -> Search:
    match search:
        case spec.GeometricSearch(trials=trials, microbatches=microbatches, fresh=fresh):
            return GeometricSearch(trials, microbatches, fresh)
        case spec.Decrement(kappa=kappa, adaptive=adaptive, microbatches=microbatches):
            return Decrement(kappa, adaptive, microbatches)
        case spec.BracketSearch(microbatches=microbatches, fresh=fresh):
            return BracketSearch(microbatches, fresh)
        case spec.NoSearch():
            return FullStep()
        case _:
            assert_never(search)
