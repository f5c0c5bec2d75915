"""The functions of a transformers model, stage by stage: embedding, decoder layers, norm and head.

Each function runs the module of its stage with given weights in the place of its own, which stay on the meta device.
Layers that differ in their weights alone share one function, so that it is compiled once.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from gnflow import trees
from gnflow.models.huggingface.calls import Call, graft
from gnflow.models.norms import standardize
from gnflow.objective import Params

Function: TypeAlias = Callable[[Params, Tensor], Tensor]
Renamed: TypeAlias = Mapping[str, str]
"""Name of a weight in the module of a stage -> its name in the model."""


class Features(NamedTuple):
    """The output of the body of a model, in the form that heads of transformers read."""

    last_hidden_state: Tensor
    past_key_values: None = None
    hidden_states: None = None
    attentions: None = None
    cross_attentions: None = None
    router_logits: None = None


class Body(nn.Module):
    """Stands for the body of a model: it normalises features that it holds as a buffer `x`."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("x", torch.empty(0, device="meta"))

    def forward(self, *others: object, **named: object) -> Features:
        """Return the features as the head reads them."""
        return Features(self.norm(self.x))


class Ignored(nn.Module):
    """Stands for a module without weights whose result only layers use."""

    def forward(self, x: Tensor, *others: object, **named: object) -> Tensor:
        """Return `x`."""
        return x


class Separate(nn.LayerNorm):
    """LayerNorm in two operations: torch 2.13 does not compile the tangent of the fused one in `x` alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, then scale and shift it."""
        normal = standardize(x, self.normalized_shape, self.eps) * self.weight
        return normal if self.bias is None else normal + self.bias


def adapt_modules(model: nn.Module) -> None:
    """Replace the LayerNorms of a model by those in two operations, and let embeddings train the vector of padding."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
        if type(module) is nn.LayerNorm and module.elementwise_affine:
            module.__class__ = Separate


def find_transposed(model: nn.Module) -> frozenset[str]:
    """Return the names of the matrices that the layers of GPT-2 store as (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return frozenset(f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D))


def unwrap_forward(module: nn.Module) -> Any:
    """Return the method without its decorators, which collect outputs that no stage has."""
    return inspect.unwrap(type(module).forward)


def make_embedding(base: Any, layers: str, norm: str) -> tuple[nn.Module, Function]:
    """Return the module below the layers and its function: (weights by their names in it, ids) -> features."""
    unused: dict[str, nn.Module] = {layers: nn.ModuleList(), norm: nn.Identity()}
    for name, child in base.named_children():
        if "rotary" in type(child).__name__.lower():
            unused[name] = Ignored()
    module = graft(base, unused, forward=unwrap_forward(base))

    def embed(weights: Params, ids: Tensor) -> Tensor:
        x: Tensor = call_module(module, weights, (ids,), {"use_cache": False})[0]
        return x

    return module, embed


def make_layer(layer: nn.Module, call: Call) -> Function:
    """Return the function of a decoder layer: (weights by their names in it, x) -> x."""
    fixed = Fixed(call, dict(layer.named_buffers()))

    def apply_block(weights: Params, x: Tensor) -> Tensor:
        (positional, named), buffers = fixed.find(x)
        out = call_module(layer, {**weights, **buffers}, (x, *positional), named)
        after: Tensor = out[0] if isinstance(out, tuple) else out
        return after

    return apply_block


def make_head(model: Any, body: str, norm: nn.Module) -> tuple[nn.Module, Function]:
    """Return the module above the layers and its function: (weights by their names in it, x) -> logits."""
    module = graft(model, {body: Body(norm)}, forward=unwrap_forward(model))

    def apply_head(weights: Params, x: Tensor) -> Tensor:
        features = x.reshape(1, -1, x.shape[-1])
        logits: Tensor = call_module(module, {**weights, f"{body}.x": features}, (), {}).logits
        return logits.reshape(*x.shape[:-1], -1)

    return module, apply_head


class KeepDouble(TorchFunctionMode):
    """Keeps tensors of float64 as they are where modules of transformers turn them into float32, such as in norms.

    The checks of derivatives are in float64, and a step through float32 would take their digits.
    """

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, with float64 in the place of float32 if its first argument is in float64."""
        named = dict(named or {})
        first = arguments[0] if arguments else None
        if not isinstance(first, Tensor) or first.dtype != torch.float64:
            return function(*arguments, **named)
        if function is torch.Tensor.float:
            return first
        kept = tuple([torch.float64 if each is torch.float32 else each for each in arguments])
        return function(*kept, **{key: torch.float64 if each is torch.float32 else each for key, each in named.items()})


def call_module(module: nn.Module, weights: Params, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Call a module with these weights in the place of its own."""
    if all(weight.dtype != torch.float64 for weight in weights.values()):
        return functional_call(module, weights, positional, named)
    with KeepDouble():
        return functional_call(module, weights, positional, named)


class Fixed:
    """Arguments and buffers of a layer that do not change, on every type of device that there is here."""

    def __init__(self, call: Call, buffers: Mapping[str, Tensor]) -> None:
        types = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
        self._on = {each: _move((tuple(call), dict(buffers)), device=each) for each in types}

    def find(self, x: Tensor) -> Any:
        """Return ((positional, named), buffers) on the device of `x`, as long as its rows; numbers are of its type."""
        call, buffers = self._on[x.device.type]
        return _move(_cut(call, x.shape[1]), dtype=x.dtype), buffers


def _cut(value: Any, time: int) -> Any:
    """Cut tables (1, time, ...) and masks (1, 1, time, time) to the first positions."""
    if isinstance(value, Tensor):
        return value[..., :time, :time] if value.ndim == 4 else value[:, :time] if value.ndim > 1 else value
    if isinstance(value, tuple):
        return tuple([_cut(each, time) for each in value])
    if isinstance(value, dict):
        return {name: _cut(each, time) for name, each in value.items()}
    return value


def _move(value: Any, device: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """Move the tensors in nested tuples and dicts to a device, and those of numbers to a type."""
    if isinstance(value, Tensor):
        moved = value if device is None else value.to(device)
        return moved if dtype is None or not moved.is_floating_point() else moved.to(dtype)
    if isinstance(value, tuple | list):
        return tuple([_move(each, device, dtype) for each in value])
    if isinstance(value, dict):
        return {name: _move(each, device, dtype) for name, each in value.items()}
    return value


def is_alike(one: tuple[nn.Module, Call], other: tuple[nn.Module, Call]) -> bool:
    """Return whether two layers compute the same function of their weights."""
    if _describe(one[0]) != _describe(other[0]):
        return False
    ours, theirs = trees.list_tensors(tuple(one[1])), trees.list_tensors(tuple(other[1]))
    return len(ours) == len(theirs) and all(a is b or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _describe(layer: nn.Module) -> list[object]:
    """Describe modules, their plain attributes and the shapes of their weights."""
    plain = bool | int | float | str | tuple | None  # type: ignore[type-arg]  # of anything
    return [
        (
            name,
            type(module),
            {
                key: value
                for key, value in vars(module).items()
                if key != "layer_idx" and not key.startswith("_") and isinstance(value, plain)
            },
            {key: weight.shape for key, weight in module._parameters.items() if weight is not None},
        )
        for name, module in layer.named_modules()
    ]
