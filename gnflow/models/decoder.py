"""The LLaMA-style decoder of the Gauss-Newton study, as a pure function of its weights.

x <- embedding[tokens]                       with `embedding_norm`: rms_norm of it
x <- blocks(x)
logits = head rms_norm(x)                    with `logit_cap` c: z / sqrt(1 + (z / c)^2) of each
"""

import torch
from torch import Tensor
from torch.nn import functional

from gnflow.models.attention import Kernel
from gnflow.models.linear import Linear, apply_linear
from gnflow.models.model import Model, Stage, Weight
from gnflow.models.trunk import build_trunk, declare, declare_embedding, normalize
from gnflow.objective import Params
from gnflow.spec.model import Decoder, Transformer
from gnflow.spec.multimodal import Data


def build_for_data(spec: Decoder, data: Data, attention: Kernel) -> Model:
    """Build the model for the vocabulary of a `data:` section."""
    return build_decoder(spec, data.vocabulary, attention)


def build_decoder(spec: Transformer, vocabulary: int, kernel: Kernel) -> Model:
    """Build the model for `vocabulary` tokens with the given attention kernel."""
    base = build_trunk(spec, kernel)
    embedding_norm, cap = (spec.embedding_norm, spec.logit_cap) if isinstance(spec, Decoder) else (False, None)
    below = {"embedding.weight": declare_embedding(vocabulary, spec.width, spec.tie_embeddings)}
    if embedding_norm:
        below["embedding.norm.scale"] = Weight((spec.width,), value=1.0)
    above: dict[str, Weight] = {}
    if not spec.tie_embeddings:
        std = 0.0 if spec.zero_outputs else spec.matrix_std
        above["head.weight"] = declare("head.weight", (vocabulary, spec.width), std)
    if spec.biases:
        above["head.bias"] = declare("head.bias", (vocabulary,))
    blocks = {"embedding": tuple(below), **base.blocks, **({"head": tuple(above)} if above else {})}
    read = "embedding.weight" if spec.tie_embeddings else "head.weight"

    def embed(params: Params, inputs: Tensor) -> Tensor:
        x = functional.embedding(inputs, params["embedding.weight"])
        return normalize(x, spec.norm_epsilon) * params["embedding.norm.scale"] if embedding_norm else x

    def apply_head(params: Params, x: Tensor, linear: Linear = apply_linear) -> Tensor:
        x = base.normalize(params, x)
        logits = linear(params, read, x)
        if spec.tie_embeddings and spec.biases:  # the bias has the name of the head, not that of the matrix
            logits = logits + params["head.bias"]
        return logits if cap is None else logits * torch.rsqrt(1 + (logits / cap).square())

    layers = (Stage(frozenset(below), embed), *base.layers)
    head = Stage(frozenset({"norm.scale", read, *above}), apply_head, linears=frozenset({read}))
    return Model({**below, **base.weights, **above}, blocks, base.hidden, layers, head)
