"""Build models and objectives from a spec."""

from functools import cache
from math import ceil, isqrt

import torch
from torch import Tensor

from gnflow.curvature import staged
from gnflow.curvature.executor import Function
from gnflow.curvature.hessian import make_hessian_product
from gnflow.curvature.linearised import BENDS, SURROGATES
from gnflow.curvature.newton import expand
from gnflow.curvature.staged import Thrift
from gnflow.models.attention import Kernel
from gnflow.models.model import Model
from gnflow.objective import Objective, Params
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.factory import call_factory, make_fault
from gnflow.spec.search import Decrement

LOGITS = 2**25  # the logits take 128 MiB in float32
MOST_PIECES = 256  # each is a call, and a plan counts each by itself


def choose_kernel(experiment: Experiment) -> Kernel:
    """Choose the attention that the spec asks for, or else one that has the derivatives which its optimizer takes."""
    method = experiment.optimizer
    forward_mode = isinstance(method, spec.GaussNewton) and (
        method.tangent == "exact" or isinstance(method.search, Decrement)
    )
    return experiment.compile.attention or ("plain" if forward_mode else "flash")


def build_model(experiment: Experiment, attention: Kernel) -> Model:
    """Build the network that the spec declares. Raises EnvironmentProblem for one with a weight that no stage reads."""
    network = call_factory(experiment.model, Model, experiment.model, experiment.data, attention)
    read = frozenset().union(*(stage.reads for stage in (*network.layers, network.head)))
    if idle := [name for name in network.moving if name not in read]:
        problem = f"no stage of the model reads the weight `{idle[0]}`; expected it in the `reads` of one"
        raise make_fault(experiment.model, problem)
    return network


def find_microbatch_shape(experiment: Experiment) -> tuple[int, ...]:
    """Return (rows, context + 1) for text, and (rows, context + 1, channels) for images and text."""
    return (experiment.training.rows, experiment.data.context + 1, *experiment.data.token_shape)


def build_objective(network: Model, experiment: Experiment, recomputed: bool = False) -> Objective:
    """Build the next-token cross-entropy, weighted as the model says. Frozen weights have no gradient.

    If a micro-batch has more than LOGITS logits, they are computed in pieces; if blocks are `recomputed`, the
    activations of one block at a time are in memory.

    With `precision: bfloat16` gradients, convex models and their products are in bfloat16, Newton's model excepted.
    Values stay in float32, those of convex models too: they decide on step lengths and targets and are compared.
    """
    reduced = torch.bfloat16 if experiment.training.precision == "bfloat16" else None
    method = experiment.optimizer
    form = method.objective if isinstance(method, spec.GaussNewton) else "quadratic"
    tangent = method.tangent if isinstance(method, spec.GaussNewton) else "exact"
    lower = None if reduced is None else reduce_precision(network, reduced)
    thrift = Thrift(count_pieces(experiment), recomputed)
    if form == "newton":
        plain = build_exact(network)
        # A Hessian is no chain of stages: these two are compiled as one graph each.
        curved, product = expand(plain.value), make_hessian_product(plain.value)
        return build_exact(network, lower)._replace(curved=curved, product=product, curved_value=None)
    return staged.build_objective(network, SURROGATES[form], BENDS[form], thrift, lower, tangent)


def build_exact(network: Model, reduced: Model | None = None) -> Objective:
    """Build the loss in full precision and in one piece. Its curvature is the cross-entropy's Gauss-Newton matrix.

    All but values use the network `reduced`, if there is one.
    """
    return staged.build_objective(network, SURROGATES["quadratic"], BENDS["quadratic"], reduced=reduced)


def reduce_precision(network: Model, dtype: torch.dtype) -> Model:
    """Make the network compute in a type of fewer bits, except for its logits."""

    @cache
    def reduce(function: Function) -> Function:
        def run(weights: Params, x: Tensor) -> Tensor:
            return function({name: w.to(dtype) for name, w in weights.items()}, x)

        run.__name__ = function.__name__
        return run

    below = reduce(network.head.function)

    def run_exactly(weights: Params, x: Tensor) -> Tensor:
        return below(weights, x).float()

    run_exactly.__name__ = network.head.function.__name__
    layers = tuple(stage._replace(function=reduce(stage.function)) for stage in network.layers)
    return network._replace(layers=layers, head=network.head._replace(function=run_exactly))


def count_pieces(experiment: Experiment) -> int:
    """Count the pieces of a micro-batch that keep about LOGITS logits in memory. All have equally many tokens.

    A tangent by a difference has the logits of two passes. If the number of tokens has no suitable divisor, the nearest
    one in ratio is taken.
    """
    method, tokens = experiment.optimizer, experiment.training.rows * experiment.data.context
    passes = 2 if isinstance(method, spec.GaussNewton) and method.tangent == "difference" else 1
    least = min(ceil(passes * tokens * experiment.data.vocabulary / LOGITS), MOST_PIECES)
    small = [count for count in range(1, isqrt(tokens) + 1) if tokens % count == 0]
    divisors = {*small, *(tokens // count for count in small)}
    return min(sorted(divisors), key=lambda count: max(count / least, least / count))
