"""The LLaMA-style decoder of the Gauss-Newton study, as a pure function of its weights.

x <- embedding[tokens]
x <- blocks(x)
logits = head rms_norm(x)
"""

from torch import Tensor
from torch.nn import functional

from gnflow.models.attention import Kernel
from gnflow.models.linear import Linear, apply_linear
from gnflow.models.model import Model, Stage
from gnflow.models.trunk import build_trunk, declare, declare_embedding
from gnflow.objective import Params
from gnflow.spec.model import Transformer
from gnflow.spec.multimodal import Data


def build_for_data(spec: Transformer, data: Data, attention: Kernel) -> Model:
    """Build the model for the vocabulary of a `data:` section."""
    return build_decoder(spec, data.vocabulary, attention)


def build_decoder(spec: Transformer, vocabulary: int, kernel: Kernel) -> Model:
    """Build the model for `vocabulary` tokens with the given attention kernel."""
    base = build_trunk(spec, kernel)
    weights = {"embedding.weight": declare_embedding(vocabulary, spec.width, spec.tie_embeddings), **base.weights}
    blocks: dict[str, tuple[str, ...]] = {"embedding": ("embedding.weight",), **base.blocks}
    if not spec.tie_embeddings:
        weights["head.weight"] = declare("head.weight", (vocabulary, spec.width))
        blocks["head"] = ("head.weight",)

    read = "embedding.weight" if spec.tie_embeddings else "head.weight"

    def embed(params: Params, inputs: Tensor) -> Tensor:
        return functional.embedding(inputs, params["embedding.weight"])

    def apply_head(params: Params, x: Tensor, linear: Linear = apply_linear) -> Tensor:
        return linear(params, read, base.normalize(params, x))

    layers = (Stage(frozenset({"embedding.weight"}), embed), *base.layers)
    head = Stage(frozenset({"norm.scale", read}), apply_head, linears=frozenset({read}))
    return Model(weights, blocks, base.hidden, layers, head)
