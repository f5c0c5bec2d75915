"""The class of transformers that computes what a decoder of gnflow computes, its config and the names of its weights.

    feedforward swiglu -> LlamaForCausalLM          any other feedforward -> ArceeForCausalLM

Both normalise by RMSNorm before each part, turn positions in halves and have no biases. Neither normalises queries and
keys, so that a decoder with `qk_norm` has no class, nor has one with any key of `PLAIN` at another value.
"""

from typing import Any

from gnflow.errors import SpecError
from gnflow.objective import Params
from gnflow.spec.canonical import format_value
from gnflow.spec.huggingface import format_config
from gnflow.spec.model import Decoder, ModelKind

ACTIVATIONS = {"swiglu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu_squared": "relu2"}
PLAIN = {
    "biases": False,
    "rope_fraction": 1.0,
    "attention_scale": None,
    "embedding_norm": False,
    "logit_cap": None,
}
"""The values of keys that the classes have no counterpart of."""
WHOLE = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.scale": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
IN_BLOCK = {
    "attention.norm.scale": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feedforward.norm.scale": "post_attention_layernorm.weight",
    "feedforward.gate.weight": "mlp.gate_proj.weight",
    "feedforward.up.weight": "mlp.up_proj.weight",
    "feedforward.down.weight": "mlp.down_proj.weight",
}


def write_config(model: ModelKind, vocabulary: int, context: int, end_of_text: int | None) -> str:
    """Return the text of the config.json of the same function.

    Raises SpecError with the keys that would have to change if no class of transformers has this shape.
    """
    if not isinstance(model, Decoder):
        raise SpecError(
            f"model.kind is `{model.kind}`, whose shape no class of transformers has\n"
            "only `decoder` and `huggingface` can be exported"
        )
    if model.qk_norm != "none":
        raise SpecError(
            f"model.qk_norm is `{model.qk_norm}`: no class of transformers has this norm of queries and keys in blocks "
            "like these\nonly a run with `qk_norm: none` can be exported"
        )
    values = {key: getattr(model, key) for key in PLAIN}
    odd = [f"`{key}: {format_value(value)}`" for key, value in values.items() if value != PLAIN[key]]
    if odd:
        raise SpecError(
            f"no class of transformers computes what `model` does with {', '.join(odd)}\n"
            "only a run without these keys can be exported"
        )
    llama = model.feedforward == "swiglu"
    config: dict[str, Any] = {
        "model_type": "llama" if llama else "arcee",
        "architectures": ["LlamaForCausalLM" if llama else "ArceeForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": model.width,
        "intermediate_size": model.hidden or 4 * model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.key_value_heads or model.heads,
        "head_dim": model.width // model.heads,
        "hidden_act": ACTIVATIONS[model.feedforward],
        "max_position_embeddings": context,
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "tie_word_embeddings": model.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": end_of_text,
        "pad_token_id": None,
    }
    return format_config(config)


def rename_weights(params: Params) -> Params:
    """Return the weights of a decoder by the names that the classes of transformers give them."""
    return {_rename(name): weight for name, weight in params.items()}


def _rename(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, layer, inside = name.split(".", 2)
    return f"model.layers.{layer}.{IN_BLOCK[inside]}"
