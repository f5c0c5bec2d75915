"""Build models and objectives from a spec."""

from math import ceil
from typing import Literal

import torch
from torch import Tensor

from gnflow.curvature import pieces
from gnflow.curvature.diagonal import estimate_diagonal
from gnflow.curvature.hessian import make_hessian_product
from gnflow.curvature.linearised import BENDS, SURROGATES, Form, linearise, make_curvature_product
from gnflow.curvature.newton import expand
from gnflow.curvature.pieces import Thrift
from gnflow.curvature.tangents import PULLS, Pull, push_exactly
from gnflow.models.attention import Kernel
from gnflow.models.loss import compute_cross_entropy, compute_total_weight
from gnflow.models.model import Model, Stage
from gnflow.objective import Objective, Params, Scalar, Tokens
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.factory import call_factory
from gnflow.spec.search import Decrement

LOGITS, MOST_PIECES = 2**25, 32  # the logits take 128 MiB in float32; every further piece makes a graph longer


def choose_kernel(experiment: Experiment) -> Kernel:
    """Choose the attention that the spec asks for, or else one that has the derivatives which its optimizer takes."""
    method = experiment.optimizer
    forward_mode = isinstance(method, spec.GaussNewton) and (
        method.tangent == "exact" or isinstance(method.search, Decrement)
    )
    return experiment.compile.attention or ("plain" if forward_mode else "flash")


def build_model(experiment: Experiment, attention: Kernel) -> Model:
    """Build the network that the spec declares."""
    return call_factory(experiment.model, Model, experiment.model, experiment.data, attention)


def find_microbatch_shape(experiment: Experiment) -> tuple[int, ...]:
    """Return (rows, context + 1) for text, and (rows, context + 1, channels) for images and text."""
    return (experiment.training.rows, experiment.data.context + 1, *experiment.data.token_shape)


def build_objective(network: Model, experiment: Experiment, recomputed: bool = False) -> Objective:
    """Build the next-token cross-entropy, weighted as the model says. Frozen weights have no gradient.

    If a micro-batch has more than LOGITS logits, they are computed in pieces; if blocks are `recomputed`, the
    activations of one block at a time are in memory.

    With `precision: bfloat16` only gradients are in bfloat16. Values stay in float32, since they decide on step lengths
    and targets and are compared with the convex model.
    """
    reduced = torch.bfloat16 if experiment.training.precision == "bfloat16" else None
    method = experiment.optimizer
    form = method.objective if isinstance(method, spec.GaussNewton) else "quadratic"
    pull = PULLS[method.tangent] if isinstance(method, spec.GaussNewton) else push_exactly
    lower = network if reduced is None else _reduce_precision(network, reduced)
    thrift = Thrift(count_pieces(experiment), recomputed)
    if form != "newton" and thrift != Thrift():
        return pieces.build_objective(network, thrift, SURROGATES[form], BENDS[form], lower, pull)
    return _build_plain(network, form, lower, pull)


def build_exact(network: Model) -> Objective:
    """Build the loss in full precision and in one piece. Its curvature is the cross-entropy's Gauss-Newton matrix."""
    return _build_plain(network)


def _build_plain(
    network: Model,
    form: Form | Literal["newton"] = "quadratic",
    lower: Model | None = None,
    pull: Pull = push_exactly,
) -> Objective:
    """Build the loss with all logits at once. Gradients use the network `lower`, if there is one."""

    def compute_loss(of: Model, params: Params, tokens: Tokens) -> Scalar:
        inputs, targets = of.split(tokens)
        return compute_cross_entropy(of.compute_logits(params, inputs), targets)

    def pick_moving(params: Params) -> Params:
        return {name: weight for name, weight in params.items() if name not in network.frozen}

    def value(params: Params, tokens: Tokens) -> Scalar:
        return compute_loss(network, params, tokens)

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        moving = pick_moving(params)
        slope, at = torch.func.grad_and_value(lambda part: compute_loss(lower or network, {**params, **part}, tokens))(
            moving
        )
        return slope, at

    if form == "newton":
        curved, product = expand(value), make_hessian_product(value)
    else:
        curved = linearise(network.compute_logits, SURROGATES[form], network.split, pull)
        product = make_curvature_product(network.compute_logits, BENDS[form], network.split)
    estimate = estimate_diagonal((lower or network).compute_logits, network.split)

    def diagonal(params: Params, noise: Tensor, tokens: Tokens) -> Params:
        return estimate(params, pick_moving(params), noise, tokens)

    return Objective(
        value, gradient, curved, product, lambda tokens: compute_total_weight(network.split(tokens)[1]), diagonal
    )


def _reduce_precision(network: Model, dtype: torch.dtype) -> Model:
    """Make the network compute in a type of fewer bits, except for its logits."""

    def reduce(stage: Stage) -> Stage:
        def run(params: Params, x: Tensor) -> Tensor:
            return stage.run({name: w.to(dtype) for name, w in params.items() if name in stage.reads}, x)

        return stage._replace(run=run)

    head = reduce(network.head)
    exact = head._replace(run=lambda params, x: head.run(params, x).float())
    return network._replace(layers=tuple(map(reduce, network.layers)), head=exact)


def count_pieces(experiment: Experiment) -> int:
    """Count the pieces of a micro-batch that keep at most LOGITS logits in memory.

    A tangent by a difference has the logits of two passes.
    """
    method, tokens = experiment.optimizer, experiment.training.rows * experiment.data.context
    passes = 2 if isinstance(method, spec.GaussNewton) and method.tangent == "difference" else 1
    return min(ceil(passes * tokens * experiment.data.vocabulary / LOGITS), MOST_PIECES, tokens)
