"""A momentum divided by Kronecker products that stand for the Gauss-Newton matrices of linear layers.

    G_W = E sum over rows of vec(D) vec(D)',  D = sum_t g_t x_t'      x: inputs, g: gradients at outputs, W is (m, n)
    every k updates, on the batch of the step:
        expand      A <- mean over t of x_t x_t',   B <- sum over t of g_t g_t'
        reduce      A <- mean over rows of z z',  z = mean of x_t;   B <- sum over rows of h h',  h = sum of g_t
        frobenius   A <- sum over rows of D' v D / sqrt s,   B <- sum over rows of D u D' / sqrt s,
                    u = A / |A|,  v = B / |B|,  s = <v, sum D u D'>;  it minimises |G_W - B x A|
        both are averaged over the observations;   A = QA diag(a) QA',   B = QB diag(b) QB'
        factors     C <- (b + sqrt(damping) mean b) (a + sqrt(damping) mean a)'
        product     C <- b a'
        corrected   C averages the sum over rows of (QB' D QA)^2
    M <- M + (1 - c)(G - M)
    U <- QB [(QB' N QA) / (C + l)] QA',   N = G + c (M - G) (Nesterov) or M;   l = damping mean C, or 0 for `factors`
    W <- W - lr (U + decay W),   U first scaled to a root mean square of 0.2 with `scale: match_rms`

With `damping` relative to the mean of b a', the damping of factors by pi of Martens & Grosse is the form above.

Source:   Martens & Grosse 2015, arXiv:1503.05671; expand and reduce: Eschenhagen et al. 2023, arXiv:2311.00636;
          corrected (EK-FAC): George et al. 2018, arXiv:1806.03884; frobenius (KFOC): Koroko et al. 2022,
          arXiv:2201.10285, and Schnaus et al. 2021, bayesiandeeplearning.org/2021/papers/33.pdf
Code:     github.com/f-dangel/curvlinops kfac.py, ekfac.py, kfoc.py @ 63fd690
Differs:  damping is relative to the mean curvature of each matrix; the mean of C of EK-FAC is kept when the bases turn,
          as SOAP keeps its second moment; the power iterations of KFOC begin at the average of earlier observations
Use:      to compare with Gauss-Newton: the curvature of linear layers for one to a few gradients every
          `estimate_every` updates. Its directions came closest to a Gauss-Newton step of all, and it trained to a lower
          loss than Muon at equal tokens, with more FLOPs (docs/results/oracle_gap.md). Not with `as_torch`
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from gnflow.objective import Params, Scalar
from gnflow.optim.arguments import add_help_of
from gnflow.optim.decay import add_decay
from gnflow.spec.base import Count, Unit
from gnflow.spec.rules import Beta, Cautious, MomentumFields
from gnflow.transform import Collect, Schedule, Signals, Transform, make_counter, make_rate

if TYPE_CHECKING:
    from torch import Tensor


class KfacRule(MomentumFields):
    """K-FAC, EK-FAC or KFOC: Kronecker factors of the Gauss-Newton matrix (arXiv:1503.05671); for matrices only."""

    factory = "gnflow.optim.kfac:kfac"
    takes_signals = True
    kind: Literal["kfac"] = "kfac"
    scale: Literal["match_rms", "none"] = "match_rms"
    """`match_rms` scales the update of each matrix to a root mean square of 0.2, that of an AdamW update. `none` keeps
    the length that the curvature gives it."""
    form: Literal["factors", "product", "corrected"] = "factors"
    """The curvature in the eigenbases of the factors: their product with damping on each factor (`factors`) or on the
    product (`product`), or a second moment that is measured there (`corrected`, EK-FAC)."""
    kronecker: Literal["expand", "reduce", "frobenius"] = "expand"
    """The Kronecker factors: every token counts by itself (`expand`), or its row as a whole (`reduce`); or the factors
    whose product is closest to the curvature in the Frobenius norm (`frobenius`, KFOC)."""
    iterations: Annotated[Count, Unit("power iterations")] = 2
    """Number of power iterations of `frobenius` in one observation. Each takes a forward and a reverse pass."""
    damping: Annotated[float, Field(ge=0)] = 0.01
    """Damping of the curvature, as a fraction of its mean over the entries of each matrix."""
    factor_beta: Beta = 0.95
    """Decay rate of the averages of factors and of corrected curvature, per observation."""
    estimate_every: Annotated[Count, Unit("updates")] = 10
    """Number of updates between two observations of the layers. One costs about as much as a gradient."""
    targets: Literal["drawn", "expanded"] = "drawn"
    """The gradients at outputs: those of labels that the model draws (`drawn`), or of all logits one by one
    (`expanded`), which takes as many passes as there are words in the vocabulary."""


class KfacState(NamedTuple):
    """Updates made, learning rate, momentum; observations made, averages of both factors, their bases, and C."""

    updates: Scalar
    learning_rate: Scalar
    momentum: Params
    observations: Scalar
    inputs: Params
    outputs: Params
    left_basis: Params
    right_basis: Params
    curvature: Params


@add_help_of(KfacRule)
def kfac(
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float | Cautious = 0.0,
    scale: Literal["match_rms", "none"] = "match_rms",
    form: Literal["factors", "product", "corrected"] = "factors",
    kronecker: Literal["expand", "reduce", "frobenius"] = "expand",
    iterations: int = 2,
    damping: float = 0.01,
    factor_beta: float = 0.95,
    estimate_every: int = 10,
    targets: Literal["drawn", "expanded"] = "drawn",
    schedule: Schedule | None = None,
) -> Transform[KfacState]:
    """Make K-FAC for matrices (m, n) and stacks (k, m, n). Raises ValueError in `init` for anything else.

    Until the first observation the curvature is 1. `Transform.signals` shows it the layers.
    """
    import torch

    from gnflow import trees
    from gnflow.optim import bases
    from gnflow.optim import kronecker as products
    from gnflow.optim.eigenbasis import find_basis
    from gnflow.optim.momentum import average_gradients, choose_followed, require_choice, require_matrices

    require_choice("kfac", "scale", scale, ("match_rms", "none"))
    require_choice("kfac", "form", form, ("factors", "product", "corrected"))
    require_choice("kfac", "kronecker", kronecker, ("expand", "reduce", "frobenius"))
    require_choice("kfac", "targets", targets, ("drawn", "expanded"))
    expanded = targets == "expanded"

    def init(params: Params) -> KfacState:
        require_matrices("kfac", params)
        outputs, inputs = bases.begin_factors(params, sys.maxsize)
        return KfacState(
            make_counter(params),
            make_rate(learning_rate, params),
            trees.zeros(params),
            make_counter(params),
            inputs,
            outputs,
            bases.begin_bases(outputs),
            bases.begin_bases(inputs),
            trees.map_tensors(torch.ones_like, params),
        )

    def observe(collect: Collect, state: KfacState) -> KfacState:
        names = list(state.curvature)

        def average(before: Params, seen: Params) -> Params:
            return products.follow_average(before, seen, factor_beta, state.observations)

        seen = {"inputs": state.inputs, "outputs": state.outputs}
        for _ in range(iterations if kronecker == "frobenius" else 0):
            seen = products.iterate(collect, names, seen["inputs"], seen["outputs"], expanded)
        if kronecker != "frobenius":
            statistic = products.reduce if kronecker == "reduce" else products.expand
            seen = collect(names, lambda name, k: statistic, expanded)
        inputs, outputs = average(state.inputs, seen["inputs"]), average(state.outputs, seen["outputs"])
        right, left = trees.map_tensors(find_basis, inputs), trees.map_tensors(find_basis, outputs)
        if form == "corrected":
            squares = collect(names, lambda name, k: products.square_in(left[name][k], right[name][k]), expanded)
            curvature = average(state.curvature, squares["squares"])
        else:
            extra = damping**0.5 if form == "factors" else 0.0
            curvature = {
                name: products.multiply(outputs[name], left[name], inputs[name], right[name], extra) for name in names
            }
        return state._replace(
            observations=state.observations + 1,
            inputs=inputs,
            outputs=outputs,
            left_basis=left,
            right_basis=right,
            curvature=curvature,
        )

    def find_due(state: KfacState) -> int | None:
        # The plan asks on the meta device, where there is no count, what an observation costs.
        updates = 0 if state.updates.is_meta else int(state.updates)
        return None if updates % estimate_every else updates

    def divide(followed: Tensor, curvature: Tensor) -> Tensor:
        mean = curvature.mean((-2, -1), keepdim=True)
        bent = curvature if form == "factors" else curvature + damping * mean
        return followed / torch.where(mean > 0, bent, 1.0).clamp(min=torch.finfo(bent.dtype).tiny)

    def update(gradients: Params, state: KfacState, params: Params) -> tuple[Params, KfacState]:
        lr = state.learning_rate if schedule is None else state.learning_rate * schedule(state.updates)
        mean = average_gradients(gradients, state.momentum, momentum)
        followed = choose_followed(gradients, mean, momentum, nesterov)
        turned = bases.turn_into(followed, state.left_basis, state.right_basis)
        divided = {name: divide(x, state.curvature[name]) for name, x in turned.items()}
        updates = {}
        for name, u in bases.turn_back(divided, state.left_basis, state.right_basis).items():
            w, step = params[name], products.match_rms(u) if scale == "match_rms" else u
            updates[name] = -lr * add_decay(weight_decay, step, w)
        return updates, state._replace(updates=state.updates + 1, momentum=mean)

    def look_ahead(gradients: Params, state: KfacState) -> Params:
        return choose_followed(
            gradients, average_gradients(gradients, state.momentum, momentum), momentum, nesterov
        )  # fmt: skip

    return Transform(
        init, update, momentum=look_ahead, signals=Signals(observe, find_due, estimate_every)
    )  # fmt: skip
