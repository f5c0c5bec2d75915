"""Build the model of a directory of transformers: any causal model whose decoder layers follow one another.

Weights keep the names that transformers gives them; tied weights come once. Nothing has dropout.

Source:   the package transformers, version 5
Differs:  attention by the kernels here; logits and losses in float32; no dropout, no cache
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from gnflow.errors import SpecError
from gnflow.models.attention import Kernel
from gnflow.models.huggingface.calls import Call, record_calls
from gnflow.models.huggingface.classes import KEY, find_class
from gnflow.models.huggingface.initial import declare_weights
from gnflow.models.huggingface.kernels import NAMES, attend, register
from gnflow.models.huggingface.stages import (
    Function,
    Renamed,
    adapt_modules,
    find_transposed,
    is_alike,
    make_embedding,
    make_head,
    make_layer,
)
from gnflow.models.model import Model, Stage, Weight
from gnflow.objective import Params
from gnflow.spec.huggingface import HuggingFaceModel
from gnflow.spec.multimodal import Data


def build_for_data(spec: HuggingFaceModel, data: Data, attention: Kernel) -> Model:
    """Build the model for rows of a `data:` section.

    Raises SpecError if its class has another form, or has too few ids or positions for the data.
    """
    return _build(spec.config, data.vocabulary, data.context, attention)


@lru_cache(maxsize=8)
def _build(text: str, vocabulary: int, context: int, kernel: Kernel) -> Model:
    config, cls = find_class(text)
    _require_room(config, vocabulary, context)
    register()
    config.dtype = torch.float32
    model = make_skeleton(cls, config, NAMES[kernel])
    prefix, layers = _find_layers(model)
    base = getattr(model, prefix)
    try:
        weights = declare_weights(model, model.initialize_weights)
    except LookupError as error:
        raise SpecError(
            f"{KEY}: gnflow cannot draw first weights of {cls.__name__} like transformers: {error}"
        ) from None
    calls = record_calls(base, layers, config.hidden_size, context)
    adapt_modules(model)
    named = {id(weight): name for name, weight in model.named_parameters()}

    below, embed = make_embedding(base, layers, calls.norm)
    above, apply_head = make_head(model, prefix, getattr(base, calls.norm))
    embedding, head = _make_stage(below, embed, named), _make_stage(above, apply_head, named)
    stages = _make_layers(getattr(base, layers), f"{prefix}.{layers}", calls.of_layers, config, context)
    blocks = _group(weights, embedding, stages, head, cls.__name__)
    hidden = frozenset(n for stage in stages for n in stage.reads if len(weights[n].shape) == 2)
    return Model(weights, blocks, hidden, (embedding, *stages), head, transposed=find_transposed(model))


def make_skeleton(cls: Any, config: Any, attention: str) -> Any:
    """Make a model whose weights are on the meta device and whose buffers are on the CPU."""
    try:
        with torch.device("meta"):
            model = cls._from_config(config, attn_implementation=attention, experts_implementation="batched_mm")
    except (ValueError, TypeError, RuntimeError, KeyError, NotImplementedError, ImportError) as error:
        raise SpecError(f"{KEY}: transformers cannot make {cls.__name__} of config.json: {error}") from None
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device="cpu")
    return model.eval()


def _require_room(config: Any, vocabulary: int, context: int) -> None:
    if vocabulary > config.vocab_size:
        raise SpecError(
            f"{KEY}: the model has {config.vocab_size} token ids, and the data has {vocabulary}\n"
            "use the model's own tokenizer (leave out `data.tokenizer`), or a model with more ids"
        )
    most = getattr(config, "max_position_embeddings", None) or context
    if context > most:
        raise SpecError(
            f"data.context is {context}, but the model takes at most {most} tokens (max_position_embeddings)"
        )


def _find_layers(model: Any) -> tuple[str, str]:
    """Return the name of the body in a model, and the name of the list of layers in the body. Raises SpecError."""
    prefix = model.base_model_prefix
    base = getattr(model, prefix, None)
    lists = [] if base is None else [n for n, child in base.named_children() if isinstance(child, nn.ModuleList)]
    lists = [name for name in lists if len(getattr(base, name))]
    if len(lists) != 1 or any(isinstance(each, nn.ModuleList) for each in model.children()):
        raise SpecError(f"{KEY}: {type(model).__name__} is no row of decoder layers, which gnflow needs")
    return prefix, lists[0]


def _make_stage(module: nn.Module, function: Function, named: dict[int, str]) -> Stage:
    """Make a stage whose function knows the weights by their names in the whole model."""
    renamed: Renamed = {
        name: named[id(weight)]
        for name, weight in module.named_parameters(remove_duplicate=False)
        if id(weight) in named
    }

    def run(weights: Params, x: Tensor) -> Tensor:
        return function({name: weights[whole] for name, whole in renamed.items()}, x)

    run.__name__ = function.__name__
    return Stage(frozenset(renamed.values()), run)


def _make_layers(layers: nn.ModuleList, path: str, calls: list[Call], config: Any, context: int) -> list[Stage]:
    """Make a stage of each layer. Layers that are alike have one function."""
    kinds: list[tuple[nn.Module, Call, Function]] = []
    stages = []
    for number, (layer, call) in enumerate(zip(layers, calls, strict=True)):
        function = next((f for known, its, f in kinds if is_alike((known, its), (layer, call))), None)
        if function is None:
            function = make_layer(layer, call)
            _try_out(layer, function, config, context)
            kinds.append((layer, call, function))
        prefix = f"{path}.{number}."
        stages.append(Stage(frozenset(f"{prefix}{name}" for name, _ in layer.named_parameters()), function, prefix))
    return stages


def _try_out(layer: nn.Module, function: Function, config: Any, context: int) -> None:
    """Run a layer on the meta device. Raises SpecError if it does not use the attention that it is given."""
    from transformers import AttentionInterface

    used: list[object] = []

    def note(module: nn.Module, *parts: Any, **named: Any) -> Any:
        used.append(module)
        return attend(module, *parts, kernel="plain", **named)

    x = torch.empty(1, context, config.hidden_size, device="meta")
    own = config._attn_implementation
    AttentionInterface.register("gnflow_noted", note)
    config._attn_implementation = "gnflow_noted"
    try:
        with torch.no_grad():
            out = function(dict(layer.named_parameters()), x)
    except (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"{KEY}: gnflow cannot run {type(layer).__name__} alone: {error}") from None
    finally:
        config._attn_implementation = own
    if not used or not isinstance(out, Tensor) or out.shape != x.shape:
        raise SpecError(f"{KEY}: {type(layer).__name__} has an attention of its own, which has no tangent here")


def _group(
    weights: dict[str, Weight], first: Stage, layers: list[Stage], last: Stage, name: str
) -> dict[str, tuple[str, ...]]:
    """Group the weights by stage, in order of depth; the norm belongs to the last layer, a tied head to the embedding.

    Raises SpecError for a weight that no stage reads, or that two layers share.
    """
    owner: dict[str, str] = dict.fromkeys(first.reads, "embedding")
    for number, stage in enumerate(layers):
        owner |= dict.fromkeys(stage.reads, f"layers.{number}")
    for weight in last.reads - owner.keys():
        owner[weight] = "head" if len(weights[weight].shape) > 1 else f"layers.{len(layers) - 1}"
    if owner.keys() != weights.keys():
        odd = ", ".join(sorted(owner.keys() ^ weights.keys())[:3])
        raise SpecError(f"{KEY}: {name} has weights that are not of one embedding, layer or head: {odd}")
    order = ["embedding", *(f"layers.{number}" for number in range(len(layers))), "head"]
    blocks = {block: tuple(name for name in weights if owner[name] == block) for block in order}
    return {block: names for block, names in blocks.items() if names}
