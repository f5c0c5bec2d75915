"""Spec -> objects: models, objectives, transforms and optimizers, each by one closed `match`."""

from collections.abc import Hashable, Iterable
from math import ceil
from typing import Literal, assert_never

import torch
from torch import Tensor

from gnflow.compiler.routing import routing
from gnflow.curvature import pieces
from gnflow.curvature.hessian import hessian
from gnflow.curvature.linearised import BENDS, SURROGATES, Form, curvature, linearised
from gnflow.curvature.newton import expanded
from gnflow.curvature.pieces import Thrift
from gnflow.curvature.tangents import PULLS, Pull, pushed
from gnflow.metrics.conflict import conflict
from gnflow.metrics.curvature import Curvature
from gnflow.metrics.dominance import dominance
from gnflow.metrics.evaluation import Measure, grouped_losses, held_out_loss, tallied
from gnflow.models.attention import Kernel
from gnflow.models.decoder import decoder
from gnflow.models.emu3 import emu3
from gnflow.models.janus import janus
from gnflow.models.loss import cross_entropy, weight
from gnflow.models.modality import by_modality
from gnflow.models.model import Model, Stage
from gnflow.objective import Objective, Params, Scalar, Tokens
from gnflow.optim import averages, schedules
from gnflow.optim.adamw import adamw
from gnflow.optim.adaptive_steps import BracketSearch, Decrement
from gnflow.optim.combine import chain, clip_by_global_norm, partition
from gnflow.optim.conjugate_gradients import ConjugateGradients
from gnflow.optim.descent import Descent, Probe
from gnflow.optim.fisher_orthogonal import FisherOrthogonal, Projection
from gnflow.optim.frozen import Frozen
from gnflow.optim.gauss_newton import Block, GaussNewton, Search
from gnflow.optim.muon import muon
from gnflow.optim.protocol import AnyState, AnyTransform, Jit, Optimizer, Region
from gnflow.optim.rmnp import rmnp
from gnflow.optim.search import FullStep, GeometricSearch
from gnflow.optim.soap import soap
from gnflow.optim.stacks import Stacks
from gnflow.optim.statistics import Statistics, stacks
from gnflow.spec import optimizer as spec
from gnflow.spec import rules
from gnflow.spec import schedules as spec_schedules
from gnflow.spec import training as spec_training
from gnflow.spec.experiment import Experiment
from gnflow.spec.model import Decoder, Emu3, Janus
from gnflow.spec.multimodal import Multimodal
from gnflow.spec.specials import specials
from gnflow.spec.training import Dominance, Loss, Metric, ModalityConflict

LOGITS, MOST_PIECES = 2**25, 32  # 128 MiB of float32; every piece makes a graph longer


def kernel(experiment: Experiment) -> Kernel:
    """The attention that the spec asks for, or else one that has the derivatives its optimizer takes."""
    method = experiment.optimizer
    forward_mode = isinstance(method, spec.GaussNewton) and (
        method.tangent == "exact" or isinstance(method.search, spec.Decrement)
    )
    return experiment.compile.attention or ("plain" if forward_mode else "flash")


def model(experiment: Experiment, attention: Kernel) -> Model:
    """The declared network."""
    match experiment.model, experiment.data:
        case Decoder() as shape, data:
            return decoder(shape, data.vocabulary, attention)
        case Emu3() as shape, data:
            return emu3(shape, data.vocabulary, attention)
        case Janus() as shape, Multimodal() as data:
            placeholder = specials(data.style, data.text_vocabulary)["PLACEHOLDER"]
            return janus(shape, data.text_vocabulary, data.codebook, data.patch_values, placeholder, attention)
        case shape, data:
            raise AssertionError(f"{shape.kind} does not read {data.kind}")


def microbatch_shape(experiment: Experiment) -> tuple[int, ...]:
    """(rows, context + 1) of text, (rows, context + 1, channels) of images and text."""
    data = experiment.data
    channels = (data.channels,) if isinstance(data, Multimodal) else ()
    return (experiment.training.rows, data.context + 1, *channels)


def objective(network: Model, experiment: Experiment, recomputed: bool = False) -> Objective:
    """Next-token cross-entropy, weighted as the model says; frozen weights have no gradient.

    Where all logits of a micro-batch would take more than LOGITS, those of a piece of it are there at a time; and where
    blocks are `recomputed`, the activations of one of them.

    In bfloat16, where the spec says so, are gradients alone. Values decide about step lengths and targets and are set
    against the convex model: they keep float32.
    """
    reduced = torch.bfloat16 if experiment.training.precision == "bfloat16" else None
    method = experiment.optimizer
    form = method.objective if isinstance(method, spec.GaussNewton) else "quadratic"
    pull = PULLS[method.tangent] if isinstance(method, spec.GaussNewton) else pushed
    lower = network if reduced is None else _rounded(network, reduced)
    thrift = Thrift(logit_pieces(experiment), recomputed)
    if form != "newton" and thrift != Thrift():
        return pieces.objective(network, thrift, SURROGATES[form], BENDS[form], lower, pull)
    return _objective(network, form, lower, pull)


def _objective(
    network: Model,
    form: Form | Literal["newton"] = "quadratic",
    lower: Model | None = None,
    pull: Pull = pushed,
) -> Objective:
    """All logits at once; gradients are those of `lower`, where it is given."""

    def loss(of: Model, params: Params, tokens: Tokens) -> Scalar:
        inputs, targets = of.split(tokens)
        return cross_entropy(of.logits(params, inputs), targets)

    def value(params: Params, tokens: Tokens) -> Scalar:
        return loss(network, params, tokens)

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        moving = {name: weight for name, weight in params.items() if name not in network.frozen}
        slope, at = torch.func.grad_and_value(lambda part: loss(lower or network, {**params, **part}, tokens))(moving)
        return slope, at

    if form == "newton":
        curved, product = expanded(value), hessian(value)
    else:
        curved = linearised(network.logits, SURROGATES[form], network.split, pull)
        product = curvature(network.logits, BENDS[form], network.split)
    return Objective(value, gradient, curved, product, lambda tokens: weight(network.split(tokens)[1]))


def _rounded(network: Model, dtype: torch.dtype) -> Model:
    """The network in a type of fewer bits, but for its logits."""

    def low(stage: Stage) -> Stage:
        def run(params: Params, x: Tensor) -> Tensor:
            return stage.run({name: w.to(dtype) for name, w in params.items() if name in stage.reads}, x)

        return stage._replace(run=run)

    head = low(network.head)
    exact = head._replace(run=lambda params, x: head.run(params, x).float())
    return network._replace(layers=tuple(map(low, network.layers)), head=exact)


def logit_pieces(experiment: Experiment) -> int:
    """Of a micro-batch, so that no more than LOGITS are there at a time."""
    tokens = experiment.training.rows * experiment.data.context
    return min(ceil(tokens * experiment.data.vocabulary / LOGITS), MOST_PIECES, tokens)


def probe(experiment: Experiment) -> Probe | None:
    """What is measured of the momentum at every update, where a metric asks for it."""
    return dominance if any(isinstance(metric, Dominance) for metric in experiment.metrics) else None


def measures(experiment: Experiment, network: Model, jit: Jit) -> tuple[Measure, ...]:
    """What the declared metrics measure at every evaluation."""
    multimodal = isinstance(experiment.data, Multimodal)

    def measure(metric: Metric) -> Measure | None:
        match metric:
            case Loss(microbatches=count) if multimodal:
                return grouped_losses(jit("tally", tallied(network)), count)
            case Loss(microbatches=count):
                return held_out_loss(count)
            case ModalityConflict(microbatches=count):
                return conflict(network, count)
            case _:
                return None

    return tuple(filter(None, map(measure, experiment.metrics)))


def probed(experiment: Experiment, optimizer: Optimizer) -> Curvature | None:
    """What measures the curvature, where a metric asks for it: eager, in full precision, as it is seldom called."""
    wanted = next((metric for metric in experiment.metrics if isinstance(metric, spec_training.Curvature)), None)
    if wanted is None:
        return None
    network = model(experiment, "plain")  # the one kernel that has all derivatives
    loss = _objective(network)
    second = loss._replace(product=hessian(loss.value))
    return Curvature(wanted, loss, second, network.moving_blocks, optimizer, experiment.training.seed)


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
        if isinstance(method.inner, spec.FirstOrderMethod) and isinstance(lent, Descent):
            lent = lent.over(_stacks(method.inner, network, names))
        blocks[name] = Block(names, lent, suffix)
    return blocks


def _inner(
    method: spec.FirstOrderMethod | spec.ConjugateGradients,
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


def _structure(
    method: spec.FirstOrderMethod | spec.ConjugateGradients, network: Model, names: Iterable[str]
) -> Hashable:
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


def _stacks(method: spec.FirstOrderMethod, network: Model, names: Iterable[str]) -> Stacks:
    routes = routing(method, network).routes
    return Stacks.by_rule({name: routes[name] for name in names}, {name: network.weights[name].shape for name in names})


def _descent(
    method: spec.FirstOrderMethod,
    network: Model,
    schedule: schedules.Schedule,
    jit: Jit,
    probe: Probe | None,
    names: Iterable[str] | None = None,
) -> Descent:
    """Over all parameters, or those named."""
    labels, routes = routing(method, network)
    stacks = _stacks(method, network, routes if names is None else names)
    transforms = {label: _transform(rule, schedule) for label, rule in labels.items()}
    if not isinstance(method, spec.AdamW):
        # Where matrices have a method of their own, the statistics are its own: published projections are of matrices.
        for label, rule in labels.items():
            if label == "others" or isinstance(rule, rules.AdamWRule):
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
        modalities = isinstance(method, spec.MlFopSoap) and method.granularity == "modality"
        return FisherOrthogonal(
            clipped,
            stacks,
            method.microbatches,
            jit,
            rate,
            probe,
            leaves=method.leaves if isinstance(method, spec.MlFopSoap) and not modalities else 2,
            projection=Projection(method.beta, method.beta_bound, method.damping, method.metric),
            statistics=method.statistics,
            second_moment=method.second_moment,
            layer_step=method.layer_step,
            parts=by_modality if modalities else None,
        )
    return Descent(clipped, stacks, method.microbatches, jit, rate, probe)


def _transform(rule: rules.RuleUse | spec.FirstOrderMethod, schedule: schedules.Schedule) -> AnyTransform:
    match rule:
        case rules.AdamWRule():
            return adamw(rule.learning_rate, rule.betas, rule.eps, rule.weight_decay, schedule)
        case rules.MuonRule():
            return muon(
                rule.learning_rate,
                rule.momentum,
                rule.nesterov,
                rule.weight_decay,
                rule.ns_steps,
                rule.scale,
                schedule,
                coefficients=rule.coefficients,
                split=rule.split,
            )
        case rules.RmnpRule():
            return rmnp(rule.learning_rate, rule.momentum, rule.nesterov, rule.weight_decay, rule.scale, schedule)
        case rules.SoapFields():
            return soap(
                rule.learning_rate,
                rule.betas,
                rule.eps,
                rule.weight_decay,
                rule.precondition_frequency,
                rule.max_precondition_dim,
                rule.shampoo_beta,
                rule.normalize_gradients,
                rule.fresh_factors,
                schedule,
            )
        case _:
            assert_never(rule)


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
