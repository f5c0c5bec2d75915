"""Turn the `config.json` of a Hugging Face model into a spec of a decoder with its sizes."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gnflow.spec.elsewhere import find_reason
from gnflow.spec.like.draft import Found, Given, Lack, Unreadable, read_settings, shorten

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "*.safetensors"
LONGEST_CONTEXT = 1024
"""A model may read many thousands of tokens; a first run does not train on rows that long."""


Find: TypeAlias = Callable[..., tuple[str, object]]


class Family(NamedTuple):
    """The properties of all models of one `model_type`, which config.json does not state."""

    gated: bool = True
    """Whether the feedforward layer has a gate."""
    tied: bool = False
    qk_norm: str = "none"
    lacks: tuple[Lack, ...] = ()


NO_BIASES = "`model.biases` would give one to every linear map, the head included"
_OLD = (
    Lack("learned positions", "a decoder here has rotary positions"),
    Lack("LayerNorm", "a decoder here has RMSNorm"),
    Lack("biases", NO_BIASES),
)
FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(lacks=(Lack("biases of queries, keys and values", NO_BIASES),)),
    "qwen3": Family(qk_norm="head", lacks=(Lack("RMSNorm of queries and keys", "`qk_norm: head` is a LayerNorm"),)),
    "gpt2": Family(gated=False, tied=True, lacks=_OLD),
}
SIZES = {
    "model.layers": ("num_hidden_layers", "n_layer"),
    "model.width": ("hidden_size", "n_embd"),
    "model.heads": ("num_attention_heads", "n_head"),
    "model.key_value_heads": ("num_key_value_heads",),
    "model.hidden": ("intermediate_size", "n_inner"),
    "model.norm_epsilon": ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"),
}
ACTIVATIONS = {
    (True, "silu"): "swiglu",
    (True, "swish"): "swiglu",
    (False, "gelu"): "gelu",
    (False, "gelu_new"): "gelu_tanh",
    (False, "gelu_pytorch_tanh"): "gelu_tanh",
}
OFF = (None, False, 0, 0.0)
# Keys that say nothing about training: ids of special tokens, generation, and the library's own records.
ASIDE = {
    "architectures", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "model_type", "use_cache",
    "transformers_version", "_name_or_path", "name_or_path", "auto_map", "pretraining_tp", "task_specific_params",
    "torch_dtype", "dtype", "n_ctx", "summary_type", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_use_proj", "max_window_layers", "use_sliding_window", "layer_types",
    "return_dict", "output_attentions", "output_hidden_states", "rope_parameters", "initializer_range",
}  # fmt: skip


def read_pretrained(directory: Path, root: Path) -> Iterator[Found]:
    """Yield the values of the spec and what has no counterpart. `root` is the project. Raises Unreadable."""
    config = _read_config(directory / CONFIG)
    kind = str(config.get("model_type", ""))
    family = FAMILIES.get(kind, Family())
    used = set[str]()

    def find(*names: str) -> tuple[str, object]:
        used.update(names)
        return next(((name, config[name]) for name in names if config.get(name) is not None), ("", None))

    yield Given("model.kind", "decoder", f"model_type {kind}" if kind else "")
    sizes: dict[str, object] = {}
    for path, names in SIZES.items():
        name, value = find(*names)
        sizes[path] = value
        if isinstance(value, int | float):
            yield Given(path, value, name)
    name, activation = find("hidden_act", "activation_function")
    feedforward = ACTIVATIONS.get((family.gated, str(activation)))
    if feedforward:
        yield Given("model.feedforward", feedforward, name)
    elif activation is not None:
        yield Lack(f"{name} = {shorten(repr(activation))}", "the decoder has `swiglu`, `gelu` and `gelu_tanh`")
    yield Given("model.qk_norm", family.qk_norm)
    name, tied = find("tie_word_embeddings")
    yield Given("model.tie_embeddings", bool(family.tied if tied is None else tied), name)
    yield from _read_rotary(config, used)
    _, side = find("head_dim")
    width, heads = sizes["model.width"], sizes["model.heads"]
    if isinstance(side, int) and isinstance(width, int) and isinstance(heads, int) and side * heads != width:
        yield Lack(f"head_dim = {side}", "heads here divide `model.width` among them")
    yield from _read_data(directory, root, find)
    yield from family.lacks
    if kind not in FAMILIES:
        yield Lack(f"model_type = {shorten(repr(kind))}", "not among the types known here; its sizes alone are taken")
    for key, value in config.items():
        if key not in used | ASIDE and value not in OFF:
            yield Lack(f"{shorten(key)} = {shorten(repr(value))}", find_reason(key) or "a decoder here has no such key")
    if any(directory.glob(WEIGHTS)):
        yield Lack("the weights", "the run starts from weights of its own")


def _read_config(file: Path) -> Mapping[str, object]:
    try:
        config = json.loads(read_settings(file))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{file} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise Unreadable(f"{file} is a {type(config).__name__}; expected an object")
    return config


def _read_rotary(config: Mapping[str, object], used: set[str]) -> Iterator[Found]:
    used.update(("rope_theta", "rope_scaling"))
    inner = config.get("rope_parameters")
    rotary = inner if isinstance(inner, dict) else {}
    theta = config.get("rope_theta") or rotary.get("rope_theta")
    if isinstance(theta, int | float):
        yield Given("model.rope_theta", theta, "rope_theta")
    scaling = config.get("rope_scaling") or (inner if rotary.get("rope_type", "default") != "default" else None)
    if scaling:
        yield Lack(f"rope_scaling = {shorten(scaling)}", "rotary frequencies here are not scaled")


def _read_data(directory: Path, root: Path, find: Find) -> Iterator[Found]:
    name, longest = find("max_position_embeddings", "n_positions")
    if isinstance(longest, int):
        yield Given("data.context", min(longest, LONGEST_CONTEXT), f"{name} is {longest}")
    _, vocabulary = find("vocab_size")
    file = (directory / TOKENIZER).resolve()
    if not file.is_file() or not isinstance(vocabulary, int):
        yield Lack(f"vocab_size = {vocabulary}", f"there is no {TOKENIZER} beside it; a new `bpe` is trained")
    elif not file.is_relative_to(root.resolve()):
        yield Lack(str(file), f"it lies outside the project {root}; link or copy it, and set data.tokenizer.path")
    else:
        yield Given("data.tokenizer.kind", "huggingface")
        yield Given("data.tokenizer.path", file.relative_to(root.resolve()).as_posix())
        yield Given("data.tokenizer.vocabulary", vocabulary, "vocab_size")
