"""Spec -> objects: models, objectives, transforms and optimizers, each by one closed `match`."""

import re
from collections.abc import Mapping
from typing import NamedTuple, assert_never

import torch

from gnflow import trees
from gnflow.curvature.linearised import SURROGATES, linearised
from gnflow.errors import SpecError
from gnflow.models.attention import Kernel
from gnflow.models.decoder import decoder
from gnflow.models.loss import cross_entropy, split
from gnflow.models.model import Model
from gnflow.objective import Objective, Params, Scalar, Tokens
from gnflow.optim import schedules
from gnflow.optim.adamw import adamw
from gnflow.optim.combine import chain, clip_by_global_norm, partition
from gnflow.optim.descent import Descent
from gnflow.optim.gauss_newton import GaussNewton, Search
from gnflow.optim.muon import muon
from gnflow.optim.protocol import AnyState, AnyTransform, Jit, Optimizer
from gnflow.optim.search import FullStep, GeometricSearch
from gnflow.optim.stacks import Stacks
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment


def kernel(optimizer: spec.Optimizer) -> Kernel:
    """The fastest attention that has the derivatives this optimizer takes."""
    return "plain" if isinstance(optimizer, spec.GaussNewton) else "flash"


def model(experiment: Experiment, attention: Kernel) -> Model:
    """The declared network."""
    return decoder(experiment.model, experiment.data.vocabulary, attention)


def objective(network: Model, experiment: Experiment) -> Objective:
    """Next-token cross-entropy. In bfloat16, where the spec says so, are gradients alone.

    Values decide about step lengths and targets and are set against the convex model: they keep float32.
    """
    reduced = torch.bfloat16 if experiment.training.precision == "bfloat16" else None
    form = experiment.optimizer.objective if isinstance(experiment.optimizer, spec.GaussNewton) else "quadratic"

    def value(params: Params, tokens: Tokens) -> Scalar:
        inputs, targets = split(tokens)
        return cross_entropy(network.logits(params, inputs), targets)

    def rounded(params: Params, tokens: Tokens) -> Scalar:
        inputs, targets = split(tokens)
        return cross_entropy(network.logits(trees.mapped(lambda w: w.to(reduced), params), inputs).float(), targets)

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        slope, loss = torch.func.grad_and_value(value if reduced is None else rounded)(params, tokens)
        return slope, loss

    return Objective(value, gradient, linearised(network.logits, SURROGATES[form]))


class Routing(NamedTuple):
    """Which rule owns which parameter."""

    rules: Mapping[str, spec.RuleUse]
    """Label -> method, in order of precedence."""
    routes: Mapping[str, str]
    """Parameter -> label."""


def routing(method: spec.AdamW | spec.Muon, network: Model) -> Routing:
    """First match wins. Raises SpecError for a rule that owns nothing, and for a vector under a matrix method."""
    rules: dict[str, spec.RuleUse] = {f"rules.{i}": rule.use for i, rule in enumerate(method.rules)}
    match method:
        case spec.AdamW():
            rules["adamw"] = method
        case spec.Muon():
            rules |= {"muon": method, "others": method.others}
        case _:
            assert_never(method)

    def owner(name: str) -> str:
        for i, rule in enumerate(method.rules):
            if re.search(rule.match, name):
                return f"rules.{i}"
        if isinstance(method, spec.AdamW):
            return "adamw"
        return "muon" if name in network.hidden else "others"

    routes = {name: owner(name) for name in network.weights}
    for i, rule in enumerate(method.rules):
        owned = [name for name, label in routes.items() if label == f"rules.{i}"]
        vectors = [name for name in owned if len(network.weights[name].shape) != 2]
        if not owned:
            raise SpecError(f"optimizer rule {i} (match: {rule.match}) owns no parameter; see `gnflow plan` for names")
        if vectors and isinstance(rule.use, spec.MuonRule):
            raise SpecError(f"optimizer rule {i} (match: {rule.match}) sends vectors to muon: {', '.join(vectors)}")
    return Routing(rules, routes)


def optimizer(method: spec.Optimizer, network: Model, steps: int, jit: Jit) -> Optimizer:
    """The optimizer of a run of `steps` steps."""
    match method:
        case spec.GaussNewton():
            inner = _descent(method.inner, network, _inner_schedule(method, steps), jit)
            return GaussNewton(inner, method.inner_steps, _search(method.search), method.warm_start, method.average)
        case spec.AdamW() | spec.Muon():
            return _descent(method, network, _schedule(method.schedule, steps), jit)
        case _:
            assert_never(method)


def _descent(method: spec.AdamW | spec.Muon, network: Model, schedule: schedules.Schedule, jit: Jit) -> Descent:
    rules, routes = routing(method, network)
    stacks = Stacks.by_rule(routes, {name: weight.shape for name, weight in network.weights.items()})
    combined = partition({label: _transform(rule, schedule) for label, rule in rules.items()}, stacks.rules())
    clipped = combined if method.clip is None else chain(clip_by_global_norm(method.clip), combined)
    main = method.kind if method.kind in routes.values() else next(iter(routes.values()))

    def rate(state: AnyState) -> Scalar:
        """The rate of the method's own rule at this update."""
        part = (state if method.clip is None else state[-1])[main]
        return part.learning_rate * schedule(part.updates)  # type: ignore[no-any-return]  # each rule has its own state

    return Descent(clipped, stacks, method.microbatches, jit, rate)


def _transform(rule: spec.RuleUse, schedule: schedules.Schedule) -> AnyTransform:
    match rule:
        case spec.AdamWRule():
            return adamw(rule.learning_rate, rule.betas, rule.eps, rule.weight_decay, schedule)
        case spec.MuonRule():
            return muon(
                rule.learning_rate, rule.momentum, rule.nesterov, rule.weight_decay, rule.ns_steps, rule.scale, schedule
            )
        case _:
            assert_never(rule)


def _schedule(schedule: spec.Schedule, updates: int) -> schedules.Schedule:
    match schedule:
        case spec.Constant(warmup=warmup):
            return schedules.constant(warmup)
        case spec.Cosine(warmup=warmup, final=final):
            return schedules.cosine(updates, warmup, final)
        case _:
            assert_never(schedule)


def _inner_schedule(method: spec.GaussNewton, steps: int) -> schedules.Schedule:
    match method.schedule:
        case spec.Constant(warmup=warmup):
            return schedules.constant(warmup)
        case spec.GlobalCosine(warmup=warmup, final=final):
            return schedules.cosine(steps * method.inner_steps, warmup, final)
        case spec.InnerCosine(final=final):
            return schedules.inner_cosine(method.inner_steps, steps, final)
        case spec.ConstantWithInnerCosine(final=final):
            return schedules.constant_with_inner_cosine(method.inner_steps, final)
        case _:
            assert_never(method.schedule)


def _search(search: spec.Search) -> Search:
    match search:
        case spec.GeometricSearch(trials=trials, microbatches=microbatches):
            return GeometricSearch(trials, microbatches)
        case spec.NoSearch():
            return FullStep()
        case _:
            assert_never(search)
