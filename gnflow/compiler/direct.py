"""Call the graphs of a stage directly, once a call through torch has shown where their tensors belong.

A call through torch checks guards and joins the graphs by an autograd function. For small stages this takes longer than
their kernels: 0.2 milliseconds for each graph, whatever the size.

    forward graph     inputs: some of the arguments               outputs: x, the tangents, what is kept
    reverse graph     inputs: outputs of the forward graph and    outputs: the slopes
                      the cotangent

An operator without a reverse pass has one graph, and its results are all outputs of that.

`find_direct` and `find_direct_call` take a call only if each tensor has exactly one place, and if each output has a
use. A graph that takes a generator of random numbers or a tensor of its own, or whose results share memory, is called
through torch as before.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gnflow.curvature.executor import Pulled
from gnflow.objective import Params

Graph: TypeAlias = Callable[[list[object]], Sequence[Any]]
"""A compiled graph. It empties the list of its inputs, so that it can free each of them early."""
Form: TypeAlias = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]
Memory: TypeAlias = tuple[int, torch.Size, tuple[int, ...], torch.dtype]


class Seen(NamedTuple):
    """A call of a graph, with the memory of its tensors. It keeps none of them alive."""

    graph: Graph
    inputs: Sequence[Memory | None]
    outputs: Sequence[Memory | None]


class Direct(NamedTuple):
    """The graphs of a stage, and the place of each tensor."""

    forward: Graph
    inputs: tuple[int, ...]
    """The place of each input of the forward graph among the arguments."""
    results: tuple[int, ...]
    """The places of x and of the tangents among its outputs."""
    reverse: Graph
    kept: tuple[int, ...]
    """The place of each input of the reverse graph among the outputs of the forward graph and the cotangent."""
    slopes: tuple[int | None, ...]
    """The place of each slope among its outputs; None for a weight that x does not depend on."""
    cotangent: Form
    """The form of the cotangent that the reverse graph was compiled for."""

    def pull(self, moving: Params, arguments: Sequence[Tensor]) -> Pulled:
        """Return (x, cotangent of x -> gradient in `moving`, tangents). The gradient can be taken once."""
        with torch.no_grad():
            outputs = list(self.forward([arguments[place] for place in self.inputs]))
        x, *tangents = (outputs[place] for place in self.results)
        for place in {*self.results}.difference(self.kept):
            outputs[place] = None

        def pullback(cotangent: Tensor) -> Params:
            if not outputs:
                raise RuntimeError("the gradient of a stage was taken before; it is taken once")
            outputs.append(_bring_into_form(cotangent, self.cotangent))
            kept = [outputs[place] for place in self.kept]
            outputs.clear()
            with torch.no_grad():
                found = self.reverse(kept)
            return fill_zeros(moving, [None if place is None else found[place] for place in self.slopes])

        return x, pullback, tuple(tangents)


class DirectCall(NamedTuple):
    """The graph of an operator without a reverse pass, and the place of each tensor."""

    graph: Graph
    inputs: tuple[int, ...]
    """The place of each input among the tensors of the arguments."""
    results: tuple[int, ...]
    """The place of each tensor of the result among its outputs."""
    structure: pytree.TreeSpec
    """The structure of the result."""

    def run(self, tensors: Sequence[Tensor]) -> Any:
        """Return what the operator returns for arguments with these tensors."""
        with torch.no_grad():
            outputs = self.graph([tensors[place] for place in self.inputs])
        return pytree.tree_unflatten([outputs[place] for place in self.results], self.structure)


def fill_zeros(moving: Params, slopes: Sequence[object]) -> Params:
    """Return the slopes by name, with zeros for those that are None."""
    pairs = zip(moving.items(), slopes, strict=True)
    return {name: slope if isinstance(slope, Tensor) else torch.zeros_like(w) for (name, w), slope in pairs}


def flatten(arguments: object) -> tuple[list[Tensor], Hashable]:
    """Return the tensors in dicts, tuples and lists, and a key of all else: names, types, numbers, None."""
    if isinstance(arguments, Tensor):
        return [arguments], Tensor
    if not isinstance(arguments, dict | tuple | list):
        return [], (type(arguments), arguments)
    names, values = (tuple(arguments), arguments.values()) if isinstance(arguments, dict) else ((), arguments)
    parts = [flatten(each) for each in values]
    tensors = [tensor for part, _ in parts for tensor in part]
    return tensors, (type(arguments), names, tuple([key for _, key in parts]))


def describe(arguments: Sequence[Tensor]) -> tuple[Form, ...]:
    """Return what a graph was compiled for."""
    return tuple([_find_form(each) for each in arguments])


def are_apart(arguments: Sequence[Tensor]) -> bool:
    """Tell whether no two arguments are one in memory."""
    return len({_find_memory(each) for each in arguments}) == len(arguments)


@contextmanager
def watch_graphs(wanted: bool) -> Iterator[list[Seen]]:
    """Note the calls of compiled graphs, if that is wanted."""
    seen: list[Seen] = []
    if not wanted:
        yield seen
        return
    from torch._inductor.output_code import CompiledFxGraph

    call = CompiledFxGraph.__call__

    def call_seen(graph: CompiledFxGraph, inputs: Sequence[Any]) -> Any:
        given = _list_memory(inputs)
        outputs = call(graph, inputs)
        seen.append(Seen(graph, given, _list_memory(outputs)))
        return outputs

    CompiledFxGraph.__call__ = call_seen  # type: ignore[assignment, method-assign]  # torch has no hook for calls of its graphs
    try:
        yield seen
    finally:
        CompiledFxGraph.__call__ = call  # type: ignore[method-assign]  # as above


def find_direct(
    arguments: Sequence[Tensor],
    forward: Sequence[Seen],
    results: Sequence[Tensor],
    cotangent: Tensor,
    reverse: Sequence[Seen],
    slopes: Sequence[Tensor | None],
) -> Direct | None:
    """Find the places of all tensors of one call, or return None if its graphs cannot be called directly."""
    if len(forward) != 1 or len(reverse) != 1:
        return None
    (ahead,), (back,) = forward, reverse
    pool = [*ahead.outputs, _find_memory(cotangent)]
    inputs, made = _locate(ahead.inputs, _list_memory(arguments)), _locate(_list_memory(results), ahead.outputs)
    kept, found = _locate(back.inputs, pool), _locate(_list_memory([s for s in slopes if s is not None]), back.outputs)
    if inputs is None or made is None or kept is None or found is None:
        return None
    used = {*made, *kept} - {len(ahead.outputs)}
    if len(used) < len(ahead.outputs) or len(found) < sum(output is not None for output in back.outputs):
        return None
    order = iter(found)
    places = tuple(None if slope is None else next(order) for slope in slopes)
    return Direct(ahead.graph, inputs, made, back.graph, kept, places, _find_form(cotangent))


def find_direct_call(arguments: Sequence[Tensor], seen: Sequence[Seen], result: object) -> DirectCall | None:
    """Find the places of all tensors of one call without a reverse pass, or return None."""
    if len(seen) != 1:
        return None
    ((graph, given, made),) = seen
    leaves, structure = pytree.tree_flatten(result)
    inputs, results = _locate(given, _list_memory(arguments)), _locate(_list_memory(leaves), made)
    if inputs is None or results is None or len({*results}) < len(made):
        return None
    return DirectCall(graph, inputs, results, structure)


def _locate(wanted: Sequence[Memory | None], among: Sequence[Memory | None]) -> tuple[int, ...] | None:
    """Return the place of each tensor; None if one has no place or could have several."""
    places: dict[Memory | None, list[int]] = {}
    for place, each in enumerate(among):
        places.setdefault(each, []).append(place)
    found = [[] if each is None else places.get(each, []) for each in wanted]
    return tuple(each[0] for each in found) if all(len(each) == 1 for each in found) else None


def _list_memory(tensors: Sequence[object]) -> list[Memory | None]:
    """Return the memory of each tensor, and None for all else."""
    return [_find_memory(each) if isinstance(each, Tensor) else None for each in tensors]


def _find_memory(tensor: Tensor) -> Memory:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _find_form(tensor: Tensor) -> Form:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _bring_into_form(tensor: Tensor, form: Form) -> Tensor:
    """Return the tensor with the strides and the type of `form`, as autograd does with a cotangent."""
    if _find_form(tensor) == form:
        return tensor
    shape, stride, dtype, device = form
    return torch.empty_strided(shape, stride, dtype=dtype, device=device).copy_(tensor)
