"""Keeps every matrix at the Frobenius norm that it began with: it moves on a sphere, in steps of a given relative size.

    R <- |W| at the start
    W <- W + lr R U / |U|               U is the update of the transform inside; only its direction counts
    W <- R W / |W|

A weight decay would have no effect on a sphere, so a rule in a spec that has one is refused. A matrix of zeros, whose
sphere is a point, stays as it is, and so does a matrix whose update is zero.

Source:   arXiv:2606.16899
Code:     github.com/NVIDIA-NeMo/Emerging-Optimizers weight_update_hooks/hyperball.py @ fd77292
Differs:  vectors take the update as it is, since several of them may be joined
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow.objective import Params
from gnflow.optim.protocol import AnyState, AnyTransform, Curvature, Fisher, Signals, Transform
from gnflow.optim.schedules import Schedule, constant


class HyperballState(NamedTuple):
    """The state of the transform inside, and the norm of every matrix."""

    inner: AnyState
    norms: Params

    @property
    def updates(self) -> Tensor:
        """Updates made."""
        count: Tensor = self.inner.updates
        return count

    @property
    def learning_rate(self) -> Tensor:
        """The fraction of its norm by which a matrix moves, before the schedule."""
        rate: Tensor = self.inner.learning_rate
        return rate


def hyperball(transform: AnyTransform, schedule: Schedule | None = None) -> Transform[HyperballState]:
    """Wrap the transform of one rule, such as `muon(0.02)`, so that matrices keep their norms.

    Its learning rate becomes the relative size of a step, which `schedule` multiplies. Pass the schedule here, since a
    schedule of the transform itself would only change what is divided out. The transform must have no weight decay.
    """
    factor = schedule or constant()

    def init(params: Params) -> HyperballState:
        norms = {name: _measure_norm(w) for name, w in params.items() if w.ndim > 1}
        return HyperballState(transform.init(params), norms)

    def move(
        inside: Callable[[], tuple[Params, AnyState]], state: HyperballState, params: Params
    ) -> tuple[Params, HyperballState]:
        lr = state.learning_rate * factor(state.updates)
        updates, inner = inside()
        kept = {
            name: _stay_on_sphere(u, params[name], state.norms[name], lr) if name in state.norms else u
            for name, u in updates.items()
        }
        return kept, state._replace(inner=inner)

    def update(gradients: Params, state: HyperballState, params: Params) -> tuple[Params, HyperballState]:
        return move(lambda: transform.update(gradients, state.inner, params), state, params)

    def wrap(metric: Fisher[AnyState]) -> Fisher[HyperballState]:
        def feed(
            direction: Params, factors: Params, second: Params, state: HyperballState, params: Params
        ) -> tuple[Params, HyperballState]:
            return move(lambda: metric.update(direction, factors, second, state.inner, params), state, params)

        return Fisher(
            lambda tree, state: metric.into(tree, state.inner),
            lambda tree, state: metric.back(tree, state.inner),
            lambda state: metric.diagonal(state.inner),
            feed,
        )

    def wrap_curvature(curvature: Curvature[AnyState]) -> Curvature[HyperballState]:
        return curvature._replace(
            observe=lambda diagonal, state: state._replace(inner=curvature.observe(diagonal, state.inner)),
            due=lambda state: curvature.due(state.inner),
        )

    def wrap_signals(signals: Signals[AnyState]) -> Signals[HyperballState]:
        return signals._replace(
            observe=lambda collect, state: state._replace(inner=signals.observe(collect, state.inner)),
            due=lambda state: signals.due(state.inner),
        )

    refresh, momentum, metric = transform.refresh, transform.momentum, transform.metric
    return transform._replace(
        init=init,
        update=update,
        refresh=refresh and (lambda gradients, state: state._replace(inner=refresh(gradients, state.inner))),
        metric=metric and wrap(metric),
        momentum=momentum and (lambda gradients, state: momentum(gradients, state.inner)),
        curvature=transform.curvature and wrap_curvature(transform.curvature),
        signals=transform.signals and wrap_signals(transform.signals),
    )


def _stay_on_sphere(update: Tensor, weight: Tensor, norm: Tensor, lr: Tensor) -> Tensor:
    tiny, size = torch.finfo(weight.dtype).tiny, _measure_norm(update)
    there = weight + lr * norm * (update / size.clamp(min=tiny))
    there = there * (norm / _measure_norm(there).clamp(min=tiny))
    return torch.where(size > 0, there - weight, torch.zeros_like(weight))


def _measure_norm(matrix: Tensor) -> Tensor:
    """Return the Frobenius norm of each matrix: (..., m, n) -> (..., 1, 1)."""
    norm: Tensor = torch.linalg.vector_norm(matrix, dim=(-2, -1), keepdim=True)
    return norm
