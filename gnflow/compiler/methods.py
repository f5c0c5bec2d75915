"""Build optimizers, and the transforms inside them, from a spec."""

from collections.abc import Hashable, Iterable, Mapping
from typing import assert_never

import torch
from torch import Tensor

from gnflow.compiler.blocks import find_blocks
from gnflow.compiler.checked import check_transform
from gnflow.compiler.pace import Pace, set_pace
from gnflow.compiler.routing import route_parameters
from gnflow.models.modality import split_by_modality
from gnflow.models.model import Model
from gnflow.objective import Scalar
from gnflow.optim import averages, schedules
from gnflow.optim.adaptive_steps import BracketSearch, Decrement
from gnflow.optim.by_part import ByPart, Clip, Ownership, divide, name_part
from gnflow.optim.combine import Empty, chain, clip_by_global_norm, clip_by_group, partition
from gnflow.optim.conjugate_gradients import ConjugateGradients
from gnflow.optim.curvature_preconditioner import CurvaturePreconditioner
from gnflow.optim.descent import Descent, Probe
from gnflow.optim.fisher_orthogonal import FisherOrthogonal, Projection
from gnflow.optim.frozen import Frozen
from gnflow.optim.gauss_newton import Block, GaussNewton
from gnflow.optim.gradient_preconditioner import GradientPreconditioner
from gnflow.optim.hyperball import hyperball
from gnflow.optim.preconditioner import Preconditioner, arrange
from gnflow.optim.protocol import AnyState, AnyTransform, Jit, Optimizer, Transform, jit_for_block
from gnflow.optim.remembered_fold import RememberedFold
from gnflow.optim.search import FullStep, GeometricSearch, Search
from gnflow.optim.stacks import Stacks
from gnflow.spec import optimizer as spec
from gnflow.spec import rules
from gnflow.spec import search as searches
from gnflow.spec.classes import find_origin
from gnflow.spec.factory import call_factory, collect_parameters, describe
from gnflow.spec.parts import Part


def build_optimizer(
    method: spec.Optimizer,
    network: Model,
    steps: int,
    jit: Jit,
    probe: Probe | None = None,
    seed: int = 0,
    ownership: Ownership | None = None,
) -> Optimizer:
    """Build the optimizer of a run of `steps` steps, for the weights that are not frozen.

    `seed` chooses the labels that a method draws from the model, if it draws any. With an `ownership` updates are made
    by parts.
    """
    inner = _build_moving(method, network, steps, jit, probe, seed, ownership)
    return Frozen(inner, network.moving) if network.frozen else inner


def _build_moving(
    method: spec.Optimizer,
    network: Model,
    steps: int,
    jit: Jit,
    probe: Probe | None,
    seed: int,
    ownership: Ownership | None,
) -> Optimizer:
    if isinstance(method, spec.GaussNewton):
        blocks = _build_blocks(method, network, set_pace(method, steps), jit, probe, ownership, seed)
        inner, damping, carry = method.inner, method.damping, None
        if isinstance(inner, spec.ConjugateGradients):
            damping, carry = inner.damping, inner.carry
        return GaussNewton(
            blocks,
            method.inner_steps,
            _build_search(method.search),
            method.warm_start,
            _build_average(method.average),
            damping,
            carry,
            reset=method.inner_state == "reset",
            checks=method.checks,
            jit=jit,
        )
    if ownership is not None:
        return _build_by_part(method, network, set_pace(method, steps), jit, probe, network.moving, ownership, {})
    return _build_descent(method, network, set_pace(method, steps), jit, probe, seed=seed)


def _build_blocks(
    method: spec.GaussNewton,
    network: Model,
    schedule: Pace,
    jit: Jit,
    probe: Probe | None,
    ownership: Ownership | None,
    seed: int,
) -> dict[str, Block]:
    """Build one block, or those of the model. Blocks of one structure share the regions of the first of them."""
    if ownership is not None and isinstance(method.inner, spec.Method):
        named = find_blocks(network, method.blocks)
        forms: dict[str, Descent] = {}
        return {
            name: Block(
                tuple(names), _build_by_part(method.inner, network, schedule, jit, probe, names, ownership, forms)
            )
            for name, names in named.items()
        }
    if method.blocks == "full":
        inner = _build_inner(method.inner, network, schedule, jit, probe, network.moving, seed)
        return {"all": Block(network.moving, inner)}
    blocks: dict[str, Block] = {}
    lenders: dict[Hashable, Descent | ConjugateGradients] = {}
    for name, names in find_blocks(network, method.blocks).items():
        stacks = _build_stacks(method.inner, network, names)
        structure = tuple(stacks.count_numbers().items())
        if structure not in lenders:
            own = jit_for_block(jit, name)
            lenders[structure] = _build_inner(method.inner, network, schedule, own, probe, names, seed)
        lent = lenders[structure]
        blocks[name] = Block(names, lent.with_stacks(stacks) if isinstance(lent, Descent) else lent)
    return blocks


def _build_inner(
    method: spec.InnerMethod,
    network: Model,
    schedule: Pace,
    jit: Jit,
    probe: Probe | None,
    names: Iterable[str],
    seed: int,
) -> Descent | ConjugateGradients:
    if not isinstance(method, spec.ConjugateGradients):
        return _build_descent(method, network, schedule, jit, probe, names, seed)
    made = _build_preconditioner(method, network)
    return ConjugateGradients(method.iterations, method.tolerance, method.microbatches, made, jit, seed)


def _build_preconditioner(method: spec.ConjugateGradients, network: Model) -> Preconditioner | None:
    match method.preconditioner:
        case "none":
            return None
        case "adam":
            return GradientPreconditioner(method.beta)
        case "soap":
            return GradientPreconditioner(method.beta, network.hidden)
        case "ekfac":
            return CurvaturePreconditioner(method.beta, network.hidden & network.linears, network.transposed)
        case _:
            assert_never(method.preconditioner)


def _build_stacks(method: spec.InnerMethod, network: Model, names: Iterable[str]) -> Stacks:
    """Build the stacks of a block. Blocks whose stacks have equal names and sizes can share regions."""
    if isinstance(method, spec.ConjugateGradients):
        shapes, made = {name: network.weights[name].shape for name in names}, _build_preconditioner(method, network)
        return arrange(shapes) if made is None else arrange(shapes, made.turned, made.transposed)
    labels, routes = route_parameters(method, network)
    transforms = {label: build_transform(rule, schedules.constant()) for label, rule in labels.items()}
    return _stack_by_rule(network, {name: routes[name] for name in names}, transforms)


def _stack_by_rule(network: Model, routes: Mapping[str, str], transforms: Mapping[str, AnyTransform]) -> Stacks:
    each = [label for label, transform in transforms.items() if transform.each]
    return Stacks.by_rule(routes, {name: network.weights[name].shape for name in routes}, each, network.transposed)


def _build_descent(
    method: spec.Method,
    network: Model,
    schedule: Pace,
    jit: Jit,
    probe: Probe | None,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> Descent:
    """Build a first-order method for all parameters, or for those named."""
    labels, routes = route_parameters(method, network)
    transforms = {label: build_transform(rule, schedule(rule)) for label, rule in labels.items()}
    owned = routes if names is None else {name: routes[name] for name in names}
    stacks = _stack_by_rule(network, owned, transforms)
    if method.matrices:
        # If matrices have a method of their own, only its statistics are used: published projections are of matrices.
        for label, rule in labels.items():
            if not rule.matrices:
                transforms[label] = transforms[label]._replace(metric=None)
    combined = partition(transforms, stacks.rules)
    clip = _build_clip(method, labels, stacks)
    clipped = combined if clip is None else chain(clip, combined)
    main = method.kind if method.kind in routes.values() else next(iter(routes.values()))

    factor = schedule(labels[main])

    def find_main_rate(state: AnyState) -> Scalar:
        """Return the learning rate of the method's own rule at this update."""
        part = (state if clip is None else state[-1])[main]
        return part.learning_rate * factor(part.updates)  # type: ignore[no-any-return]  # each rule has its own state

    rate = find_main_rate if main in stacks.rules.values() else None
    # A block without matrices has no gradient to project.
    if isinstance(method, spec.Projected) and (names is None or clipped.metric is not None):
        memory = method.memory if isinstance(method, spec.MlFopSoap) and method.beta else 0.0
        return (RememberedFold if memory else FisherOrthogonal)(
            clipped,
            stacks,
            method.microbatches,
            jit,
            rate,
            probe,
            leaves=2 if method.by_modality else method.leaves,
            projection=Projection(method.beta, method.beta_bound, method.damping, method.metric, memory),
            statistics=method.statistics,
            second_moment=method.second_moment,
            layer_step=method.layer_step,
            parts=split_by_modality if method.by_modality else None,
            seed=seed,
        )
    return Descent(clipped, stacks, method.microbatches, jit, rate, probe, seed=seed)


def _build_clip(method: spec.Method, labels: Mapping[str, rules.FirstOrder], stacks: Stacks) -> Transform[Empty] | None:
    """Build the clipping of gradients. A part with a limit of its own is clipped apart from all others."""
    own = _list_own_limits(labels)
    if not own:
        return None if method.clip is None else clip_by_global_norm(method.clip)
    limits = own if method.clip is None else {**own, method.kind: method.clip}
    return clip_by_group(limits, {stack: rule if rule in own else method.kind for stack, rule in stacks.rules.items()})


def _list_own_limits(labels: Mapping[str, rules.FirstOrder]) -> dict[str, float]:
    return {label: rule.clip for label, rule in labels.items() if isinstance(rule, Part) and rule.clip is not None}


def _build_by_part(
    method: spec.Method,
    network: Model,
    schedule: Pace,
    jit: Jit,
    probe: Probe | None,
    names: Iterable[str],
    ownership: Ownership,
    lenders: dict[str, Descent],
) -> ByPart:
    """Build a first-order method that makes its updates by parts. Parts of one form share the regions in `lenders`."""
    labels, routes = route_parameters(method, network)
    transforms = {label: build_transform(rule, schedule(rule)) for label, rule in labels.items()}
    each = [label for label, transform in transforms.items() if transform.each]
    own = {name: routes[name] for name in names}
    solvers: dict[str, Descent] = {}
    limits, groups = _list_own_limits(labels), dict[str, str]()
    for stacks in divide(own, {name: network.weights[name].shape for name in own}, each, network.transposed):
        ((form, rule),) = stacks.rules.items()
        if form not in lenders:
            transform = partition({rule: transforms[rule]}, stacks.rules)
            lenders[form] = Descent(transform, stacks, method.microbatches, jit_for_block(jit, form), probe=probe)
        solvers[name_part(stacks)] = lenders[form].with_stacks(stacks)
        groups[name_part(stacks)] = rule if rule in limits else method.kind
    main = method.kind if method.kind in routes.values() else next(iter(routes.values()))
    base, factor = labels[main].shown_rate, schedule(labels[main])

    def find_main_rate(updates: Tensor) -> Scalar:
        return factor(updates) * torch.full((), base or 0.0, dtype=torch.float64, device=updates.device)

    rate = find_main_rate if main in own.values() and base is not None else None
    limits |= {} if method.clip is None else {method.kind: method.clip}
    return ByPart(solvers, ownership, Clip(limits, groups), rate, probed=probe is not None)


def build_transform(rule: rules.FirstOrder, schedule: schedules.Schedule) -> AnyTransform:
    """Build the transform of one rule. Raises EnvironmentProblem for a plug-in whose factory does not make one."""
    made = call_factory(rule, Transform, **collect_parameters(rule), schedule=schedule)
    found = check_transform(made, describe(rule)) if find_origin(type(rule)) else made
    return hyperball(found, schedule) if isinstance(rule, rules.MatrixMethod) and rule.hyperball else found


def _build_average(average: float | spec.Ema) -> averages.Average:
    return averages.fade(average.decay) if isinstance(average, spec.Ema) else averages.average_last(average)


def _build_search(search: searches.Search) -> Search:
    match search:
        case searches.GeometricSearch(trials=trials, microbatches=microbatches, fresh=fresh):
            return GeometricSearch(trials, microbatches, fresh)
        case searches.Decrement(kappa=kappa, adaptive=adaptive, microbatches=microbatches):
            return Decrement(kappa, adaptive, microbatches)
        case searches.BracketSearch(microbatches=microbatches, fresh=fresh):
            return BracketSearch(microbatches, fresh)
        case searches.NoSearch():
            return FullStep()
        case _:
            assert_never(search)
