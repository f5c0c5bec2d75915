"""The blocks that all models here share, as pure functions of their weights.

    x <- x + output(attention(rope(qk_norm(query n)), rope(qk_norm(key n)), value n)),   n = rms_norm(x)
    x <- x + down(gelu(up n)),                                                           n = rms_norm(x)
    before the head: rms_norm(x)

Source:   Abreu et al. 2025, arXiv:2510.09378
Code:     github.com/natalieabreu/full-gauss-newton llama_model.py @ 0c14e7e
Differs:  rotary pairs are (i, i + size/2), not neighbours; GELU is exact unless `feedforward: gelu_tanh` asks for the
          approximation that the code uses; grouped heads, SwiGLU, squared ReLU, per-head QK norms, biases, partial
          rotary positions, a scale of attention and other initial weights are options
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gnflow.models.attention import KERNELS, Attention, Kernel, rotate
from gnflow.models.linear import Linear, apply_linear
from gnflow.models.model import Stage, Weight
from gnflow.models.norms import standardize
from gnflow.objective import Params
from gnflow.spec.model import Transformer


class Trunk(NamedTuple):
    """The weights of the blocks, their names by block in order of depth, and the functions of the blocks."""

    weights: Mapping[str, Weight]
    blocks: Mapping[str, tuple[str, ...]]
    """Block -> names of its weights. The last block has the weight of `normalize`."""
    hidden: frozenset[str]
    """The names of the matrices."""
    layers: tuple[Stage, ...]
    """One stage for each block, from (rows, time, width) to the same shape. All have one function."""
    normalize: Callable[[Params, Tensor], Tensor]
    """The norm of the features (..., width) that a head begins with. It reads `norm.scale`."""


def build_trunk(spec: Transformer, kernel: Kernel) -> Trunk:
    """Build the blocks of `spec` with the given attention kernel."""
    weights = dict(_declare_weights(spec))
    blocks = {
        f"blocks.{layer}": tuple(name for name in weights if name.startswith(f"blocks.{layer}."))
        for layer in range(spec.layers)
    }
    hidden = frozenset(name for name, weight in weights.items() if len(weight.shape) > 1)
    attend = KERNELS[kernel]

    def apply_block(weights: Params, x: Tensor, linear: Linear = apply_linear) -> Tensor:
        x = x + _apply_attention(
            spec, attend, weights, normalize(x, spec.norm_epsilon) * weights["attention.norm.scale"], linear
        )
        return x + _apply_feedforward(
            spec, weights, normalize(x, spec.norm_epsilon) * weights["feedforward.norm.scale"], linear
        )

    def normalize_last(weights: Params, x: Tensor) -> Tensor:
        return normalize(x, spec.norm_epsilon) * weights["norm.scale"]

    layers = tuple(
        Stage(
            frozenset(names),
            apply_block,
            f"{prefix}.",
            frozenset(name.removeprefix(f"{prefix}.") for name in names if name in hidden),
        )
        for prefix, names in blocks.items()
    )
    blocks[f"blocks.{spec.layers - 1}"] += ("norm.scale",)
    return Trunk(weights, blocks, hidden, layers, normalize_last)


_BLOCK = (
    "attention.norm.scale",
    "attention.query.weight",
    "attention.query.bias",
    "attention.key.weight",
    "attention.key.bias",
    "attention.value.weight",
    "attention.value.bias",
    "attention.output.weight",
    "attention.output.bias",
    "attention.query_norm.scale",
    "attention.query_norm.bias",
    "attention.key_norm.scale",
    "attention.key_norm.bias",
    "feedforward.norm.scale",
    "feedforward.gate.weight",
    "feedforward.gate.bias",
    "feedforward.up.weight",
    "feedforward.up.bias",
    "feedforward.down.weight",
    "feedforward.down.bias",
)
_OUTPUTS = ("attention.output.weight", "feedforward.down.weight")


def _declare_weights(spec: Transformer) -> Iterator[tuple[str, Weight]]:
    width, hidden = spec.width, spec.hidden or 4 * spec.width
    size = width // spec.heads
    narrow = size * (spec.key_value_heads or spec.heads)
    shapes: dict[str, tuple[int, ...]] = {
        "attention.norm.scale": (width,),
        "attention.query.weight": (width, width),
        "attention.key.weight": (narrow, width),
        "attention.value.weight": (narrow, width),
        "attention.output.weight": (width, width),
        "feedforward.norm.scale": (width,),
        "feedforward.up.weight": (hidden, width),
        "feedforward.down.weight": (width, hidden),
    }
    if spec.feedforward == "swiglu":
        shapes["feedforward.gate.weight"] = (hidden, width)
    if spec.biases:
        rows = {name: shape[:1] for name, shape in shapes.items() if len(shape) == 2}
        shapes |= {f"{name.removesuffix('weight')}bias": shape for name, shape in rows.items()}
    if spec.qk_norm in ("full", "head"):
        for side, full in (("query", width), ("key", narrow)):
            normed = full if spec.qk_norm == "full" else size
            shapes |= {f"attention.{side}_norm.{part}": (normed,) for part in ("scale", "bias")}
    for layer in range(spec.layers):
        for name in _BLOCK:
            if name in shapes:
                zero = spec.zero_outputs and name in _OUTPUTS
                yield f"blocks.{layer}.{name}", declare(name, shapes[name], 0.0 if zero else spec.matrix_std)
    yield "norm.scale", Weight((width,), value=1.0)


def declare(name: str, shape: tuple[int, ...], std: float = 1.0) -> Weight:
    """Declare a matrix as N(0, std^2/fan_in), a scale as 1, a bias as 0.

    The standard deviation 1 is that of the reference's `initializer_range=1.0`.
    """
    if len(shape) == 2:
        return Weight(shape, std=std * shape[1] ** -0.5) if std else Weight(shape)
    return Weight(shape, value=1.0 if name.endswith("scale") else 0.0)


def declare_embedding(vocabulary: int, width: int, tied: bool) -> Weight:
    """Declare the table of token vectors: N(0, 1), or smaller if the table is also the output head (`tied`).

    Features reach the head with norm sqrt(width). So the logits of a tied table have the deviation of its entries times
    sqrt(width), and with deviation 1 the loss starts at about sqrt(width) nats. With 0.5 / sqrt(width) it starts about
    1/8 above the ln V of a uniform guess, whatever the width. A small table serves as input as well as a large one,
    since every block normalises its input.
    """
    return Weight((vocabulary, width), std=0.5 * width**-0.5 if tied else 1.0)


def normalize(x: Tensor, epsilon: float) -> Tensor:
    """Divide the features (..., width) by their root mean square."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def _apply_attention(spec: Transformer, attend: Attention, block: Params, x: Tensor, linear: Linear) -> Tensor:
    rows, time, width = x.shape
    query, key, value = (linear(block, f"attention.{side}.weight", x) for side in ("query", "key", "value"))
    if spec.qk_norm == "full":
        query, key = _normalize_head(spec, block, "query", query), _normalize_head(spec, block, "key", key)
    query, key, value = (part.view(rows, time, -1, width // spec.heads) for part in (query, key, value))
    if spec.qk_norm == "head":
        query, key = _normalize_head(spec, block, "query", query), _normalize_head(spec, block, "key", key)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    if spec.qk_norm == "rms":
        query, key = normalize(query, spec.norm_epsilon), normalize(key, spec.norm_epsilon)
    query, key = (rotate(part, spec.rope_theta, spec.rope_fraction) for part in (query, key))
    if spec.attention_scale is not None:  # the kernels scale by 1 / sqrt(size)
        query = query * (spec.attention_scale * query.shape[-1] ** 0.5)
    if key.shape[1] != spec.heads:
        key, value = (part.repeat_interleave(spec.heads // part.shape[1], dim=1) for part in (key, value))
    merged = attend(query, key, value).transpose(1, 2).reshape(rows, time, width)
    return linear(block, "attention.output.weight", merged)


def _normalize_head(spec: Transformer, block: Params, side: str, x: Tensor) -> Tensor:
    scale, bias = block[f"attention.{side}_norm.scale"], block[f"attention.{side}_norm.bias"]
    # torch 2.13 does not compile the forward derivative of layer_norm in `x` alone, with `scale` inside it.
    return standardize(x, scale.shape, spec.norm_epsilon) * scale + bias


def _apply_feedforward(spec: Transformer, block: Params, x: Tensor, linear: Linear) -> Tensor:
    up = linear(block, "feedforward.up.weight", x)
    if "feedforward.gate.weight" in block:
        up = functional.silu(linear(block, "feedforward.gate.weight", x)) * up
    elif spec.feedforward == "relu_squared":
        up = functional.relu(up).square()
    else:
        up = functional.gelu(up, approximate="tanh" if spec.feedforward == "gelu_tanh" else "none")
    return linear(block, "feedforward.down.weight", up)
