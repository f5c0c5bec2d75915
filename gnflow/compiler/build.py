"""Spec -> models and objectives."""

from math import ceil
from typing import Literal

import torch
from torch import Tensor

from gnflow.curvature import pieces
from gnflow.curvature.hessian import hessian_product
from gnflow.curvature.linearised import BENDS, SURROGATES, Form, curvature_product, linearise
from gnflow.curvature.newton import expand
from gnflow.curvature.pieces import Thrift
from gnflow.curvature.tangents import PULLS, Pull, push_exactly
from gnflow.models.attention import Kernel
from gnflow.models.loss import cross_entropy, total_weight
from gnflow.models.model import Model, Stage
from gnflow.objective import Objective, Params, Scalar, Tokens
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.factory import built

LOGITS, MOST_PIECES = 2**25, 32  # 128 MiB of float32; every piece makes a graph longer


def choose_kernel(experiment: Experiment) -> Kernel:
    """The attention that the spec asks for, or else one that has the derivatives its optimizer takes."""
    method = experiment.optimizer
    forward_mode = isinstance(method, spec.GaussNewton) and (
        method.tangent == "exact" or isinstance(method.search, spec.Decrement)
    )
    return experiment.compile.attention or ("plain" if forward_mode else "flash")


def model(experiment: Experiment, attention: Kernel) -> Model:
    """The declared network."""
    return built(experiment.model, Model, experiment.model, experiment.data, attention)


def microbatch_shape(experiment: Experiment) -> tuple[int, ...]:
    """(rows, context + 1) of text, (rows, context + 1, channels) of images and text."""
    return (experiment.training.rows, experiment.data.context + 1, *experiment.data.token_shape)


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
    pull = PULLS[method.tangent] if isinstance(method, spec.GaussNewton) else push_exactly
    lower = network if reduced is None else _reduce_precision(network, reduced)
    thrift = Thrift(count_pieces(experiment), recomputed)
    if form != "newton" and thrift != Thrift():
        return pieces.objective(network, thrift, SURROGATES[form], BENDS[form], lower, pull)
    return _objective(network, form, lower, pull)


def exact(network: Model) -> Objective:
    """The loss in full precision and in one piece; its curvature is the Gauss-Newton matrix of the cross-entropy."""
    return _objective(network)


def _objective(
    network: Model,
    form: Form | Literal["newton"] = "quadratic",
    lower: Model | None = None,
    pull: Pull = push_exactly,
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
        curved, product = expand(value), hessian_product(value)
    else:
        curved = linearise(network.logits, SURROGATES[form], network.split, pull)
        product = curvature_product(network.logits, BENDS[form], network.split)
    return Objective(value, gradient, curved, product, lambda tokens: total_weight(network.split(tokens)[1]))


def _reduce_precision(network: Model, dtype: torch.dtype) -> Model:
    """The network in a type of fewer bits, but for its logits."""

    def low(stage: Stage) -> Stage:
        def run(params: Params, x: Tensor) -> Tensor:
            return stage.run({name: w.to(dtype) for name, w in params.items() if name in stage.reads}, x)

        return stage._replace(run=run)

    head = low(network.head)
    exact = head._replace(run=lambda params, x: head.run(params, x).float())
    return network._replace(layers=tuple(map(low, network.layers)), head=exact)


def count_pieces(experiment: Experiment) -> int:
    """Of a micro-batch, so that no more than LOGITS are there at a time; a difference has those of two passes."""
    method, tokens = experiment.optimizer, experiment.training.rows * experiment.data.context
    passes = 2 if isinstance(method, spec.GaussNewton) and method.tangent == "difference" else 1
    return min(ceil(passes * tokens * experiment.data.vocabulary / LOGITS), MOST_PIECES, tokens)
