"""Compiles the operators on stages: one graph for all stages that have one function, whatever the depth of the model.

Inside a graph are an operator and, where activations are kept for the reverse pass, the reverse graph that AOTAutograd
makes of it. Ordinary autograd outside joins the two, one stage at a time.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from gnflow.compiler.direct import (
    Direct,
    DirectCall,
    are_apart,
    describe,
    fill_zeros,
    find_direct,
    find_direct_call,
    flatten,
    watch_graphs,
)
from gnflow.curvature.executor import Function, Pulled, Tangents
from gnflow.objective import Params

R = TypeVar("R")
Compile = Callable[[str, Callable[..., Any]], Callable[..., Any]]


TRIES = 3
"""After as many calls that cannot be direct, a region is called through torch for good."""


class CompiledStages:
    """An executor that compiles each operator once for every function and division of its arguments."""

    def __init__(self, jit: Compile, whole: bool = True) -> None:
        self._compile = jit
        """(name, function) -> the function, compiled at its first call."""
        self._whole = whole
        """Whether each function is one graph. Code between graphs would be left out of a direct call."""
        self._regions: dict[Hashable, Callable[..., Any]] = {}
        self._names: Counter[str] = Counter()
        self._direct: dict[Hashable, Direct] = {}
        self._direct_calls: dict[Hashable, DirectCall] = {}
        self._tries: Counter[Hashable] = Counter()

    def call(self, operator: Callable[..., R], function: Function, *arguments: object) -> R:
        """Return operator(function, *arguments)."""

        def run(*given: object) -> R:
            return operator(function, *given)

        tensors, rest = flatten(arguments)
        key = (False, operator, function, rest)
        form = (key, describe(tensors))
        may_be_direct = self._may_be_direct()
        if may_be_direct and (direct := self._direct_calls.get(form)):
            return cast("R", direct.run(tensors))
        wanted = may_be_direct and self._tries[form] < TRIES and are_apart(tensors)
        with torch.no_grad(), watch_graphs(wanted) as seen:
            result = self._find(key, operator, function, run)(*arguments)
        if wanted:
            self._tries[form] += 1
            if found := find_direct_call(tensors, seen, result):
                self._direct_calls[form] = found
        return cast("R", result)

    def pull(
        self, operator: Callable[..., tuple[Tensor, Tangents]], function: Function, moving: Params, *others: Any
    ) -> Pulled:
        """Keep the activations of the stage for its reverse pass, which can be taken once."""
        flat, rest = flatten((moving, *others))
        key = (True, operator, function, rest)
        form = (key, describe(flat))
        may_be_direct = self._may_be_direct()
        if may_be_direct and (direct := self._direct.get(form)):
            return direct.pull(moving, flat)
        wanted = may_be_direct and self._tries[form] < TRIES and are_apart(flat)
        with watch_graphs(wanted) as forward:
            leaves, x, tangents = self._pull_by_torch(key, operator, function, moving, *others)
        if not wanted:
            return x.detach(), lambda cotangent: fill_zeros(moving, _derive(x, leaves, cotangent)), tangents

        def pullback(cotangent: Tensor) -> Params:
            with watch_graphs(wanted) as reverse:
                slopes = _derive(x, leaves, cotangent)
            self._tries[form] += 1
            if direct := find_direct(flat, forward, (x, *tangents), cotangent, reverse, slopes):
                self._direct[form] = direct
            return fill_zeros(moving, slopes)

        return x.detach(), pullback, tangents

    def _may_be_direct(self) -> bool:
        """Tell whether a graph may be called directly here: not inside a transform of torch.func, which it ignores."""
        return self._whole and torch._C._functorch.maybe_current_level() is None

    def _pull_by_torch(
        self,
        key: Hashable,
        operator: Callable[..., tuple[Tensor, Tangents]],
        function: Function,
        moving: Params,
        *others: Any,
    ) -> tuple[Sequence[Tensor], Tensor, Tangents]:
        """Return (the leaves of the graph of autograd, x, tangents)."""

        def run(*given: Any) -> tuple[Tensor, Tangents]:
            x, tangents = operator(function, *given)
            # Otherwise the reverse graph would go through the tangents too, which took 1.4 times as long.
            return x, tuple(tangent.detach() for tangent in tangents)

        leaves = {name: value.detach().requires_grad_() for name, value in moving.items()}
        with torch.enable_grad():
            x, tangents = self._find(key, operator, function, run)(leaves, *others)
        return tuple(leaves.values()), x, tangents

    def _find(
        self, key: Hashable, operator: Callable[..., object], function: Function, run: Callable[..., object]
    ) -> Callable[..., Any]:
        """Find the region of this operator, or make one of `run`."""
        if key not in self._regions:
            name = f"{getattr(function, '__name__', 'stage')}.{operator.__name__}"
            self._names[name] += 1
            self._regions[key] = self._compile(f"{name}.{n}" if (n := self._names[name]) > 1 else name, run)
        return self._regions[key]


def _derive(x: Tensor, leaves: Sequence[Tensor], cotangent: Tensor) -> Sequence[Tensor | None]:
    """Return the slope of each leaf, or None where x does not depend on it."""
    return torch.autograd.grad(x, leaves, cotangent, allow_unused=True)
