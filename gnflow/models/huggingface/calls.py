"""Find out how a model of transformers calls its layers, by a pass in which no layer computes anything.

Every layer notes the arguments that it is called with beside the features: tables of rotary positions, masks. They
depend on the length of a row alone, so that each stage can keep its own.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gnflow.errors import SpecError
from gnflow.models.huggingface.classes import KEY

MARK = 7.0  # a value that the features take at the final norm


class Call(NamedTuple):
    """The arguments of a layer, without the features that come first."""

    positional: tuple[Any, ...]
    named: dict[str, Any]


class Calls(NamedTuple):
    """The calls of all layers in order, and the name of the module that follows them."""

    of_layers: list[Call]
    norm: str


def graft(module: nn.Module, children: dict[str, nn.Module], **methods: Any) -> Any:
    """Return a copy of a module that shares everything but these children and methods."""
    new = copy.copy(module)
    new._modules = {**module._modules, **children}
    if methods:
        new.__class__ = type(type(module).__name__, (type(module),), methods)
    return new


def record_calls(base: Any, layers: str, width: int, context: int) -> Calls:
    """Record the calls of the layers that are the child `layers` of `base`, for rows of `context` tokens.

    `base` is on the meta device but for its buffers. Raises SpecError if a layer looks ahead, or if more than a norm
    follows the layers.
    """
    events: list[str] = []
    calls: list[Call] = []

    def note_call(layer: nn.Module, x: Tensor, *positional: Any, **named: Any) -> Tensor:
        events.clear()
        calls.append(Call(positional, named))
        return torch.zeros(1, context, width)

    def fill(module: nn.Embedding, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, module.embedding_dim)

    children: dict[str, nn.Module] = {
        layers: nn.ModuleList([graft(layer, {}, forward=note_call) for layer in getattr(base, layers)])
    }
    for name, child in base.named_children():
        if isinstance(child, nn.Embedding):
            children[name] = graft(child, {}, forward=fill)
        elif name != layers and (next(child.parameters(), None) is not None or _is_norm(child)):
            children[name] = _Noted(name, events)
    before, base.config._attn_implementation = base.config._attn_implementation, "eager"
    try:
        with torch.no_grad():
            out = graft(base, children)(input_ids=torch.zeros(1, context, dtype=torch.int64), use_cache=False)
    finally:
        base.config._attn_implementation = before
    if len(events) != 1 or len(calls) != len(getattr(base, layers)) or not bool((out[0] == MARK).all()):
        raise SpecError(f"{KEY}: {type(base).__name__} does more than a norm after its layers, which gnflow cannot do")
    return Calls([_drop_causal_masks(call, base) for call in calls], events[0])


class _Noted(nn.Module):
    """Stands for a module: it notes that it was called."""

    def __init__(self, name: str, events: list[str]) -> None:
        super().__init__()
        self._name, self._events = name, events

    def forward(self, x: Tensor, *others: object, **named: object) -> Tensor:
        """Return marks in the shape of `x`."""
        self._events.append(self._name)
        return torch.full_like(x, MARK)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _drop_causal_masks(call: Call, base: nn.Module) -> Call:
    """Put None for a mask that is plainly causal, and a mask of booleans for any other."""

    def replace(value: Any) -> Any:
        if not _is_mask(value):
            return value
        allowed: Tensor = value if value.dtype == torch.bool else value == 0
        causal = torch.ones_like(allowed).tril()
        if bool((allowed & ~causal).any()):
            raise SpecError(f"{KEY}: {type(base).__name__} lets a token see later ones; it is no causal model")
        return None if bool((allowed == causal).all()) else allowed

    return Call(tuple(map(replace, call.positional)), {name: replace(value) for name, value in call.named.items()})


def _is_mask(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] == value.shape[-2]
