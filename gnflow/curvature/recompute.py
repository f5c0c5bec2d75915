"""Derivatives of a chain of stages that keep only the inputs of the stages; the reverse pass computes each stage again.

    forward    x, x' <- f x, J (w', x')         for each stage f, w' the displacement of its weights
    reverse    w_, x_ <- J' x_                  J of f, computed again at its own x, the last stage first

This takes one more pass of the primal and holds the activations of one stage at a time, never those of all stages.

Source:   Chen et al. 2016, arXiv:1604.06174
Differs:  pure functions under torch.func, which refuses torch.utils.checkpoint; one stage is one segment
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from torch import Tensor

from gnflow import trees
from gnflow.curvature.barrier import copy_after
from gnflow.curvature.tangents import Pull, Pulled, push_nothing
from gnflow.models.model import Stage
from gnflow.objective import Params

X = "x"
"""The name under which a stage gets its input, as if it were one of its weights."""


def push_through(stages: Sequence[Stage], pull: Pull, anchor: Params, moving: Params, inputs: Tensor) -> Pulled:
    """Do what `pull` would do for all the stages at once. At least one stage must read a parameter in `moving`."""
    x, tangent, seen = inputs, None, []
    for stage in stages:
        seen.append(x)
        own = pick_read(stage, moving)
        if tangent is not None:
            own[X] = tangent
        if own:
            x, _, tangent = pull(_make_function(stage), {**pick_read(stage, anchor), X: x}, own)
        else:
            x = stage.run(anchor, x)
    return x, partial(_pull_back, stages, seen, anchor, moving), cast("Tensor", tangent)


def _pull_back(
    stages: Sequence[Stage], seen: Sequence[Tensor], anchor: Params, moving: Params, cotangent: Tensor
) -> tuple[Params]:
    lowest = next(i for i, stage in enumerate(stages) if pick_read(stage, moving))
    gradient: Params = {}
    for i in reversed(range(lowest, len(stages))):
        point = {**pick_read(stages[i], anchor), X: copy_after(seen[i], [cotangent])}
        wanted = [*pick_read(stages[i], moving), *([X] if i > lowest else [])]
        _, back, _ = push_nothing(_make_function(stages[i]), point, trees.pick(point, wanted))
        (slope,) = back(cotangent)
        cotangent = slope.pop(X, cotangent)
        gradient |= {name: gradient[name] + s if name in gradient else s for name, s in slope.items()}
    return (trees.pick(gradient, [name for name in moving if name in gradient]),)


def pick_read(stage: Stage, params: Params) -> Params:
    """Return the parameters that the stage reads."""
    return {name: value for name, value in params.items() if name in stage.reads}


def _make_function(stage: Stage) -> Callable[[Params], Tensor]:
    return lambda point: stage.run(point, point[X])
