"""Measure the curvature of the loss at the weights, and how the optimizer uses it, on a fixed batch with fixed probes.

curvature/eigenvalue/ggn_i, hessian_i  the i-th largest eigenvalue, by Lanczos; i = 1, 2, ..
curvature/error/ggn, hessian           largest possible distance of one of these from an eigenvalue, apart from
                                       rounding, over the largest of them
curvature/least/hessian                the smallest Ritz value, an upper bound on the smallest eigenvalue
curvature/trace/ggn, hessian           the trace, by Hutch++
curvature/block_share                  part of |G|^2 that lies in the blocks of layerwise Gauss-Newton
curvature/condition/none, root, second_moment
                                       largest over smallest Ritz value of P^-1/2 G P^-1/2, in the optimizer's
                                       coordinates
curvature/gn_cosine, gn_norm_ratio     the last update u beside the solution x of (G + damping) x = -gradient, taken
                                       where u started: <u, x> / |u| |x| and |u| / |x|
curvature/gn_residual                  residual of that x over the gradient's norm, as the iteration computes it

G is the generalised Gauss-Newton matrix J' H J of the cross-entropy, whatever model the optimizer uses. Frozen weights
have no rows in it. P is 1, V^1/2 as in the optimizer's own step, or V, where V is the `Fisher.diagonal` of the
optimizer's transform; G then has the rows of the parameters that V has. A condition number is a lower bound, since the
smallest Ritz value is an upper bound; it is 1 / eps if that value is 0 apart from rounding. Methods without such
statistics (Muon, RMNP, conjugate gradients) have no condition number, and gn_* is missing before the first step.

With m iterations, k probes and B blocks this costs 3 m + 6 k + k B products with G or H and one gradient, and 3 m more
products for condition numbers. Like evaluation it is no part of a step's passes, tokens, FLOPs or seconds. It holds
max(m, 3 k) vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.conjugate_gradients import solve
from gnflow.curvature.energy import estimate_energies
from gnflow.curvature.hessian import make_hessian_product
from gnflow.curvature.lanczos import Operator, Ritz, run_lanczos
from gnflow.curvature.trace import estimate_trace
from gnflow.metrics.protocol import Metric, Moment, Subject
from gnflow.models.initial import make_generator
from gnflow.objective import Metrics, Objective, Params, Scalar
from gnflow.optim.means import average_gradient, average_product, keep_positive
from gnflow.optim.protocol import Diagonal
from gnflow.optim.statistics import find_diagonals
from gnflow.spec import training

FLOOR = 1e-8
"""The number added to P, as a part of the mean of P."""
POWERS = {"none": 0.0, "root": 0.5, "second_moment": 1.0}


def build_curvature(spec: training.Curvature, subject: Subject) -> Metric:
    """Build the metric. It measures eagerly and in full precision, since it is measured seldom."""
    loss = subject.exact()
    second = loss._replace(product=make_hessian_product(loss.value))
    probe = CurvatureProbes(spec, loss, second, subject.network.moving_blocks, subject.experiment.training.seed)
    return Metric(probe.measure, spec.microbatches, spec.every, needs_before=True)


@dataclass(frozen=True)
class CurvatureProbes:
    """The measurements of one run. `ggn` and `hessian` are the loss with the `product` of that matrix."""

    spec: training.Curvature
    ggn: Objective
    hessian: Objective
    blocks: Mapping[str, tuple[str, ...]]
    seed: int

    def measure(self, at: Moment) -> Metrics:
        """Measure all columns for which the moment has what is needed."""
        names = [name for names in self.blocks.values() for name in names]
        moving = trees.pick(at.params, [name for name in at.params if name in names])
        found: Metrics = {}
        for kind, objective in (("ggn", self.ggn), ("hessian", self.hessian)):
            operator = _make_operator(objective, at.params, at.batch)
            ritz = run_lanczos(operator, self._draw_signs("start", moving), self.spec.iterations)
            found |= _list_ends(kind, ritz, self.spec.eigenvalues)
            sketch, probes = (
                [self._draw_signs(f"{what}/{i}", moving) for i in range(self.spec.probes)] for what in "sg"
            )
            found[f"curvature/trace/{kind}"] = estimate_trace(operator, sketch, probes)
        operator = _make_operator(self.ggn, at.params, at.batch)
        within, whole = estimate_energies(
            operator, self.blocks, (self._draw_signs(f"g/{i}", moving) for i in range(self.spec.probes))
        )
        found["curvature/block_share"] = within / keep_positive(whole)
        for name, power in POWERS.items():
            if conditioned := precondition(operator, find_diagonals(at.optimizer, at.params, at.state), power):
                ritz = run_lanczos(
                    conditioned.operator, self._draw_signs("start", conditioned.like), self.spec.iterations
                )
                found[f"curvature/condition/{name}"] = compute_condition_number(ritz, next(iter(moving.values())).dtype)
        return {**found, **(self._measure_alignment(at, list(moving)) if at.before else {})}

    def _measure_alignment(self, at: Moment, names: list[str]) -> Metrics:
        before = at.before
        update = trees.subtract(trees.pick(at.params, names), trees.pick(before, names))
        gradient, _ = average_gradient(self.ggn, before, at.batch)
        downhill = trees.scale(trees.pick(gradient, names), -1)
        step, residual = solve(
            _make_operator(self.ggn, before, at.batch), downhill, self.spec.damping, self.spec.iterations
        )  # fmt: skip
        one, two = trees.norm(update), trees.norm(step)
        return {
            "curvature/gn_cosine": trees.dot(update, step) / (one * two),
            "curvature/gn_norm_ratio": one / two,
            "curvature/gn_residual": residual,
        }

    def _draw_signs(self, name: str, like: Params) -> Params:
        """Draw -1 and 1 on the CPU, as a function of the run's seed and of the name."""
        generator = make_generator(f"curvature/{self.seed}/{name}")
        drawn = {n: torch.randint(2, w.shape, generator=generator) for n, w in like.items()}
        return {n: (2 * drawn[n] - 1).to(w) for n, w in like.items()}


class PreconditionedOperator(NamedTuple):
    """The operator P^-1/2 A P^-1/2 in the optimizer's coordinates, and a vector of its shape."""

    operator: Operator
    like: Params


def precondition(operator: Operator, parts: list[Diagonal], power: float) -> PreconditionedOperator | None:
    """Precondition A by P = V^power on the rows of the parameters that have a V. Return None if none has one."""
    if not parts:
        return None
    diagonal = {f"{i}/{stack}": v for i, part in enumerate(parts) for stack, v in part.diagonal.items()}
    raised = {name: v**power for name, v in diagonal.items()}
    floor = FLOOR * trees.flatten(raised).mean()
    root = {name: (p + floor).sqrt() for name, p in raised.items()}

    def apply(vector: Params) -> Params:
        scaled = {name: x / root[name] for name, x in vector.items()}
        direction: Params = {}
        for i, part in enumerate(parts):
            direction |= part.back({stack: scaled[f"{i}/{stack}"] for stack in part.diagonal})
        image = operator(direction)
        turned = [part.into(trees.pick(image, part.names)) for part in parts]
        return {
            f"{i}/{stack}": x / root[f"{i}/{stack}"] for i, part in enumerate(turned) for stack, x in part.items()
        }  # fmt: skip

    return PreconditionedOperator(apply, diagonal)


def compute_condition_number(ritz: Ritz, dtype: torch.dtype) -> Scalar:
    """Return the largest over the smallest Ritz value, at most 1 / eps of the type in which they were computed."""
    largest, smallest = ritz.values[0], ritz.values[-1]
    return largest / torch.maximum(smallest, torch.finfo(dtype).eps * largest)


def _make_operator(objective: Objective, params: Params, batch: Tensor) -> Operator:
    model = objective.build_model(params)
    return lambda direction: average_product(model, direction, batch)


def _list_ends(kind: str, ritz: Ritz, count: int) -> Metrics:
    values, errors = ritz.values[:count], ritz.errors[:count]
    found = {f"curvature/eigenvalue/{kind}_{i}": value for i, value in enumerate(values, start=1)}
    found[f"curvature/error/{kind}"] = errors.max() / ritz.values[0].abs()
    if kind == "hessian":
        found["curvature/least/hessian"] = ritz.values[-1]
    return found
