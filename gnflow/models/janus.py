"""Janus: one causal decoder reads images as pixels and writes them as codes, each by a path of its own.

    x <- embedding[id]                              text
    x <- adaptor(encoder(pixels of the patch))      an image that is read; it replaces its placeholders
    x <- adaptor(codes[id])                         an image that is written
    x <- blocks(x)
    logits = (head n, image_head n)                 n = rms_norm(x); the softmax is over the part of the target

    adaptor, image_head:  second gelu(first x)

Source:   Wu et al. 2024, arXiv:2410.13848; Chen et al. 2025, arXiv:2501.17811
Code:     github.com/deepseek-ai/Janus janus/models/modeling_vlm.py, projector.py
Differs:  the understanding encoder is linear in the patch and trained with the rest, not a SigLIP; the generation
          adaptor is applied to the table of codes, which gives the same result as at each position
"""

import torch
from torch import Tensor
from torch.nn import functional

from gnflow.models.attention import Kernel
from gnflow.models.linear import Linear, apply_linear
from gnflow.models.modality import IDS, PIXELS, weigh
from gnflow.models.model import Model, Stage, Weight
from gnflow.models.trunk import build_trunk, declare, declare_embedding
from gnflow.objective import Params
from gnflow.spec.model import Janus, Part
from gnflow.spec.multimodal import Multimodal
from gnflow.spec.specials import number_specials

PARTS: dict[Part, tuple[str, ...]] = {
    "decoder": ("blocks.", "norm."),
    "text": ("embedding.", "head."),
    "understanding": ("understanding.",),
    "generation": ("generation.",),
    "image_head": ("image_head.",),
}
"""Part of the model -> the prefixes of its weights' names."""


def build_for_data(spec: Janus, data: Multimodal, attention: Kernel) -> Model:
    """Build the model for the ids and the patches of a `data:` section."""
    placeholder = number_specials(data.style, data.text_vocabulary)["PLACEHOLDER"]
    return build_janus(spec, data.text_vocabulary, data.codebook, data.patch_values, placeholder, attention)


def build_janus(
    spec: Janus, text_vocabulary: int, codebook: int, patch_values: int, placeholder: int, kernel: Kernel
) -> Model:
    """Build the model. Ids below `text_vocabulary` are text, the placeholder included; those above are image codes."""
    base = build_trunk(spec, kernel)
    paths = _declare_weights(spec, codebook, patch_values)
    vectors = declare_embedding(text_vocabulary, spec.width, spec.tie_embeddings)
    weights = {"embedding.weight": vectors, **paths, **base.weights}
    if not spec.tie_embeddings:
        weights["head.weight"] = declare("head.weight", (text_vocabulary, spec.width))
    weights |= _declare_mlp("image_head", spec.width, codebook, spec.width)

    def find_names(*parts: Part) -> tuple[str, ...]:
        return tuple(name for name in weights if name.startswith(tuple(p for part in parts for p in PARTS[part])))

    read = "embedding.weight" if spec.tie_embeddings else "head.weight"

    def embed(params: Params, inputs: Tensor, linear: Linear = apply_linear) -> Tensor:
        ids, pixels = inputs[..., IDS], inputs[..., PIXELS:]
        text = functional.embedding(ids.clamp(max=text_vocabulary - 1), params["embedding.weight"])
        table = _apply_mlp(params, "generation.adaptor", params["generation.codes.weight"])
        written = functional.embedding((ids - text_vocabulary).clamp(min=0), table)
        patches = pixels.to(text.dtype) / 127.5 - 1
        encoded = linear(params, "understanding.encoder.weight", patches)
        read = _apply_mlp(params, "understanding.adaptor", encoded, linear)
        kind = ids.unsqueeze(-1)
        return torch.where(kind >= text_vocabulary, written, torch.where(kind == placeholder, read, text))

    def apply_head(params: Params, x: Tensor, linear: Linear = apply_linear) -> Tensor:
        x = base.normalize(params, x)
        return torch.cat((linear(params, read, x), _apply_mlp(params, "image_head", x, linear)), dim=-1)

    blocks = {
        "embedding": ("embedding.weight",),
        "understanding": find_names("understanding"),
        "generation": find_names("generation"),
        **base.blocks,
        **({} if spec.tie_embeddings else {"head": ("head.weight",)}),
        "image_head": find_names("image_head"),
    }
    # These map features to features. Matrices that read pixels and codes, or write codes, act as embeddings and heads.
    inner = {"understanding.adaptor.first.weight", "understanding.adaptor.second.weight",
             "generation.adaptor.second.weight", "image_head.first.weight"}  # fmt: skip
    frozen = frozenset(find_names(*spec.freeze)) if spec.freeze else frozenset()
    # The generation adaptor is applied to a table, not to tokens.
    written_to = {read, "image_head.first.weight", "image_head.second.weight"}
    pixel_maps = {name for name in find_names("understanding") if name.endswith("weight")}
    above = Stage(frozenset({"norm.scale", read, *find_names("image_head")}), apply_head, linears=frozenset(written_to))
    paths_in = Stage(
        frozenset(find_names("understanding", "generation")) | {"embedding.weight"},
        embed,
        linears=frozenset(pixel_maps),
    )
    layers = (paths_in, *base.layers)
    return Model(weights, blocks, base.hidden | inner, layers, above, weigh(1.0, apart=text_vocabulary), frozen)


def _declare_weights(spec: Janus, codebook: int, patch_values: int) -> dict[str, Weight]:
    return {
        "understanding.encoder.weight": declare("weight", (spec.width, patch_values)),
        "understanding.encoder.bias": declare("bias", (spec.width,)),
        **_declare_mlp("understanding.adaptor", spec.width, spec.width, spec.width),
        "generation.codes.weight": Weight((codebook, spec.code_width), std=1.0),
        **_declare_mlp("generation.adaptor", spec.code_width, spec.width, spec.width),
    }


def _declare_mlp(name: str, inputs: int, outputs: int, width: int) -> dict[str, Weight]:
    return {
        f"{name}.first.weight": declare("weight", (width, inputs)),
        f"{name}.first.bias": declare("bias", (width,)),
        f"{name}.second.weight": declare("weight", (outputs, width)),
        f"{name}.second.bias": declare("bias", (outputs,)),
    }


def _apply_mlp(params: Params, name: str, x: Tensor, linear: Linear = apply_linear) -> Tensor:
    return linear(params, f"{name}.second.weight", functional.gelu(linear(params, f"{name}.first.weight", x)))
