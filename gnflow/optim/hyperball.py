"""Every matrix kept at the Frobenius norm that it began with: it moves on a sphere, by steps of a set relative size.

    R <- |W| at the start
    W <- W + lr R U / |U|               U the update of the transform inside, of which only the direction counts
    W <- R W / |W|

There is nothing for a weight decay to do. A matrix of zeros, whose sphere is a point, stays; so does a matrix whose
update is zero.

Source:   arXiv:2606.16899
Code:     github.com/NVIDIA-NeMo/Emerging-Optimizers weight_update_hooks/hyperball.py @ fd77292
Differs:  vectors, of which several may be joined, take the update as it is
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow.objective import Params
from gnflow.optim.protocol import AnyState, AnyTransform, Fisher, Transform
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
        """The part of its norm that a matrix moves by, before the schedule."""
        rate: Tensor = self.inner.learning_rate
        return rate


def hyperball(transform: AnyTransform, schedule: Schedule | None = None) -> Transform[HyperballState]:
    """The transform of one rule, such as `muon(0.02)`, on matrices that keep their norms.

    Its learning rate becomes the relative size of a step. `schedule` acts on this size: give it here, because one given
    to the transform itself would change only what is divided out. Give the transform no weight decay.
    """
    factor = schedule or constant()

    def init(params: Params) -> HyperballState:
        return HyperballState(transform.init(params), {name: _norm(w) for name, w in params.items() if w.ndim > 1})

    def moved(
        inside: Callable[[], tuple[Params, AnyState]], state: HyperballState, params: Params
    ) -> tuple[Params, HyperballState]:
        lr = state.learning_rate * factor(state.updates)
        updates, inner = inside()
        kept = {
            name: _on_the_sphere(u, params[name], state.norms[name], lr) if name in state.norms else u
            for name, u in updates.items()
        }
        return kept, state._replace(inner=inner)

    def update(gradients: Params, state: HyperballState, params: Params) -> tuple[Params, HyperballState]:
        return moved(lambda: transform.update(gradients, state.inner, params), state, params)

    def of(metric: Fisher[AnyState]) -> Fisher[HyperballState]:
        def fed(
            direction: Params, factors: Params, second: Params, state: HyperballState, params: Params
        ) -> tuple[Params, HyperballState]:
            return moved(lambda: metric.update(direction, factors, second, state.inner, params), state, params)

        return Fisher(
            lambda tree, state: metric.into(tree, state.inner),
            lambda tree, state: metric.back(tree, state.inner),
            lambda state: metric.diagonal(state.inner),
            fed,
        )

    renewed, ahead, metric = transform.refresh, transform.momentum, transform.metric
    return transform._replace(
        init=init,
        update=update,
        refresh=renewed and (lambda gradients, state: state._replace(inner=renewed(gradients, state.inner))),
        metric=metric and of(metric),
        momentum=ahead and (lambda gradients, state: ahead(gradients, state.inner)),
    )


def _on_the_sphere(update: Tensor, weight: Tensor, norm: Tensor, lr: Tensor) -> Tensor:
    tiny, size = torch.finfo(weight.dtype).tiny, _norm(update)
    there = weight + lr * norm * (update / size.clamp(min=tiny))
    there = there * (norm / _norm(there).clamp(min=tiny))
    return torch.where(size > 0, there - weight, torch.zeros_like(weight))


def _norm(matrix: Tensor) -> Tensor:
    """(..., m, n) -> (..., 1, 1)"""
    norm: Tensor = torch.linalg.vector_norm(matrix, dim=(-2, -1), keepdim=True)
    return norm
