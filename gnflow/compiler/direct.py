"""Call the two graphs of a stage directly, once a call through torch has shown where their tensors belong.

A call through torch checks guards and joins the graphs by an autograd function. For small stages this takes longer than
their kernels: 0.2 milliseconds for each graph, whatever the size.

    forward graph     inputs: some of the arguments               outputs: x, the tangents, what is kept
    reverse graph     inputs: outputs of the forward graph and    outputs: the slopes
                      the cotangent

`find_direct` takes a call only if each tensor has exactly one place, and if each output has a use: a graph that writes
into its inputs, draws random numbers by a generator or has results that share memory is called through torch as before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow.curvature.executor import Pulled
from gnflow.objective import Params

Graph: TypeAlias = Callable[[list[object]], Sequence[Any]]
"""A compiled graph. It empties the list of its inputs, so that it can free each of them early."""
Form: TypeAlias = tuple[tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device], ...]


class Seen(NamedTuple):
    """A call of a graph."""

    graph: Graph
    inputs: Sequence[object]
    outputs: Sequence[object]


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

    def pull(self, moving: Params, arguments: Sequence[Tensor]) -> Pulled:
        """Return (x, cotangent of x -> gradient in `moving`, tangents). The gradient can be taken once."""
        with torch.no_grad():
            outputs = list(self.forward([arguments[place] for place in self.inputs]))
        x, *tangents = (outputs[place] for place in self.results)

        def pullback(cotangent: Tensor) -> Params:
            outputs.append(cotangent)
            kept = [outputs[place] for place in self.kept]
            outputs.clear()
            with torch.no_grad():
                found = self.reverse(kept)
            return fill_zeros(moving, [None if place is None else found[place] for place in self.slopes])

        return x, pullback, tuple(tangents)


def fill_zeros(moving: Params, slopes: Sequence[object]) -> Params:
    """Return the slopes by name, with zeros for those that are None."""
    pairs = zip(moving.items(), slopes, strict=True)
    return {name: slope if isinstance(slope, Tensor) else torch.zeros_like(w) for (name, w), slope in pairs}


def describe(arguments: Sequence[Tensor]) -> Form:
    """Return what a graph was compiled for."""
    return tuple([(each.shape, each.stride(), each.dtype, each.device) for each in arguments])


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
        given = tuple(inputs)
        outputs = call(graph, inputs)
        seen.append(Seen(graph, given, tuple(outputs)))
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
    pool = [*ahead.outputs, cotangent]
    inputs, made = _locate(ahead.inputs, arguments), _locate(results, ahead.outputs)
    kept, found = _locate(back.inputs, pool), _locate([s for s in slopes if s is not None], back.outputs)
    if inputs is None or made is None or kept is None or found is None:
        return None
    used = {*made, *kept} - {len(ahead.outputs)}
    if len(used) < len(ahead.outputs) or len(found) < sum(output is not None for output in back.outputs):
        return None
    order = iter(found)
    return Direct(ahead.graph, inputs, made, back.graph, kept, tuple(s if s is None else next(order) for s in slopes))


def _locate(wanted: Sequence[object], among: Sequence[object]) -> tuple[int, ...] | None:
    """Return the place of each of the tensors `wanted`, by memory; None if one has no place or could have several."""
    places: dict[object, list[int]] = {}
    for place, each in enumerate(among):
        if isinstance(each, Tensor):
            places.setdefault(_find_memory(each), []).append(place)
    found = [places.get(_find_memory(each), []) if isinstance(each, Tensor) else [] for each in wanted]
    return tuple(each[0] for each in found) if all(len(each) == 1 for each in found) else None


def _find_memory(tensor: Tensor) -> object:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
