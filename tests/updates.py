"""Updates that a transform makes of fixed weights, for tests of the methods of matrices."""

from collections.abc import Callable

import torch
from problems import noise

from gnflow.objective import Params

SHAPES = {"square": (12, 12), "wide": (6, 20), "tall": (20, 6)}


def draw(step: int = -1) -> Params:
    """Return the gradients of a step, or the weights (step -1), in double precision."""
    return noise({name: torch.empty(shape, dtype=torch.float64) for name, shape in SHAPES.items()}, step + 1)


def follow(transform, steps: int = 6, given: Callable[[int], Params] = draw):
    """Return the updates of the weights `given(-1)` by the gradients `given(step)`, and the state after each."""
    params, updates, states = given(-1), [], []
    state = transform.init(params)
    for step in range(steps):
        state = transform.refresh(given(step), state) if transform.refresh else state
        update, state = transform.update(given(step), state, params)
        updates.append(update)
        states.append(state)
    return updates, states
