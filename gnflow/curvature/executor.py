"""The operators on the function of a stage, and the two ways to evaluate them: as they are, or compiled.

An operator takes the function and the arguments of the function in dicts, with the input x of the stage as one of them.
All stages with one function and one division into dicts take one evaluation of the same code, so an executor may
compile it once, whatever the depth of the model.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from gnflow.objective import Params

X = "x"
"""The name under which an operator gets the input of a stage, as if it were one of its weights."""

Function: TypeAlias = Callable[[Params, Tensor], Tensor]
"""The function of a stage: (weights, x) -> x."""
Tangents: TypeAlias = tuple[Tensor, ...]
"""One tangent, or none."""
Pulled: TypeAlias = tuple[Tensor, Callable[[Tensor], Params], Tangents]
R = TypeVar("R")


def apply(function: Function, point: Params) -> Tensor:
    """Return the value of a stage."""
    return function({name: weight for name, weight in point.items() if name != X}, point[X])


def keep(function: Function, moving: Params, rest: Params) -> tuple[Tensor, Tangents]:
    """Return the value of a stage and no tangent."""
    return apply(function, {**rest, **moving}), ()


def push(function: Function, moving: Params, rest: Params, displacement: Params) -> tuple[Tensor, Tangents]:
    """Return the value of a stage and its tangent J displacement, by forward mode."""
    pushforward = torch.func.jvp(lambda part: apply(function, {**rest, **part}), (moving,), (displacement,))
    # torch does not type the transform by its arguments.
    x, tangent = cast("tuple[Tensor, Tensor]", pushforward)
    return x, (tangent,)


def push_towards(function: Function, moving: Params, rest: Params, goal: Params) -> tuple[Tensor, Tangents]:
    """Return the value of a stage and its tangent J (goal - moving). Under X, `goal` has the tangent of x itself."""
    displacement = {name: there if name == X else there - moving[name].detach() for name, there in goal.items()}
    return push(function, moving, rest, displacement)


def push_from_rounded(function: Function, moving: Params, rest: Params, goal: Params) -> tuple[Tensor, Tangents]:
    """Do the same for a function that rounds its weights to bfloat16: the tangent leads from the rounded weights."""
    displacement = {
        name: there if name == X else there - moving[name].detach().bfloat16() for name, there in goal.items()
    }
    return push(function, moving, rest, displacement)


def reverse(function: Function, moving: Params, rest: Params, cotangent: Tensor) -> Params:
    """Return J' cotangent in `moving`. It computes the stage again."""
    _, pullback = torch.func.vjp(lambda part: apply(function, {**rest, **part}), moving)  # type: ignore[misc]  # torch types the form with an auxiliary output
    slope: Params = pullback(cotangent)[0]
    return slope


class Executor(Protocol):
    """Evaluates operators."""

    def call(self, operator: Callable[..., R], function: Function, *arguments: object) -> R:
        """Return operator(function, *arguments)."""

    def pull(
        self, operator: Callable[..., tuple[Tensor, Tangents]], function: Function, moving: Params, *others: Any
    ) -> Pulled:
        """Evaluate operator(function, moving, *others) = (x, tangents).

        Returns (x, cotangent of x -> gradient in `moving`, tangents). The reverse pass does not go through the tangent.
        """


class Eager:
    """Evaluates operators as they are, so that every transform of torch.func may go around them."""

    def call(self, operator: Callable[..., R], function: Function, *arguments: object) -> R:
        """Return operator(function, *arguments)."""
        return operator(function, *arguments)

    def pull(
        self, operator: Callable[..., tuple[Tensor, Tangents]], function: Function, moving: Params, *others: Any
    ) -> Pulled:
        """Keep the activations of the stage for its reverse pass."""
        x, pullback, tangents = torch.func.vjp(lambda part: operator(function, part, *others), moving, has_aux=True)  # type: ignore[misc]  # torch types the form without an auxiliary output
        return x, lambda cotangent: pullback(cotangent)[0], tangents


EAGER = Eager()


class Recompute:
    """Evaluates operators by another executor and keeps no activations: the reverse pass computes each stage again.

    This takes one more pass of the primal and holds the activations of one stage at a time.

    Source:   Chen et al. 2016, arXiv:1604.06174
    Differs:  pure functions, not torch.utils.checkpoint; one stage is one segment
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def call(self, operator: Callable[..., R], function: Function, *arguments: object) -> R:
        """Return operator(function, *arguments)."""
        return self._executor.call(operator, function, *arguments)

    def pull(
        self, operator: Callable[..., tuple[Tensor, Tangents]], function: Function, moving: Params, *others: Any
    ) -> Pulled:
        """Keep the inputs of the stage alone."""
        x, tangents = self._executor.call(operator, function, moving, *others)
        return x, lambda cotangent: self._executor.call(reverse, function, moving, others[0], cotangent), tangents
