"""The section `model:` of a spec: the architectures that it may name."""

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator

from gnflow.spec.base import Count, Kind, Listed, Rate, Unit, mark_later, refuse
from gnflow.spec.open import Open

Part = Literal["decoder", "text", "understanding", "generation", "image_head"]


class ModelKind(Kind):
    """A model. `factory` takes the model's section, the data's section and the attention kernel; it returns a Model."""

    reads: ClassVar[Literal["text", "multimodal"]] = "text"
    """The kind of data that the model reads."""

    @property
    def side(self) -> int:
        """A length that the sides of the matrices are proportional to; 1 if there is none."""
        return 1

    def smaller(self, side: int) -> Self:
        """Return this model with one layer and sides of this length, for `gnflow verify`; itself if it cannot."""
        return self


class Transformer(ModelKind):
    """A causal transformer. With the defaults, its blocks are those of arXiv:2510.09378.

    Pre-RMSNorm, rotary positions, LayerNorm of queries and keys over the full width, no biases, plain GELU, own head.
    """

    kind: Literal["decoder", "emu3", "janus"]
    layers: Count = 3
    """Number of transformer blocks."""
    width: Annotated[Count, Unit("features")] = 64
    """Width of the residual stream."""
    heads: Annotated[Count, Field(validate_default=True)] = 4
    """Number of attention heads. `width` divided by `heads` must be an even whole number."""
    key_value_heads: Count | None = None
    """Number of key and value heads (grouped-query attention). It must divide `heads`. Default: the value of
    `heads`."""
    feedforward: Literal["gelu", "gelu_tanh", "swiglu", "relu_squared"] = "gelu"
    """Type of the feedforward layer: `gelu` has two matrices, `swiglu` has three. `gelu_tanh` is `gelu` with the
    approximation by tanh that the code of arXiv:2510.09378 uses. `relu_squared` has the square of ReLU
    (arXiv:2109.08668) in place of GELU."""
    hidden: Annotated[Count | None, Unit("features")] = None
    """Width of the hidden layer of the feedforward. Default: 4 x `width`."""
    qk_norm: Literal["full", "head", "rms", "none"] = "full"
    """Norm of queries and keys: `full` is a LayerNorm over the full width before the split into heads, `head` is a
    LayerNorm of each head, `rms` is an RMSNorm of each head without parameters, and `none` does not normalise."""
    attention_scale: Annotated[Rate | None, mark_later(None)] = None
    """Factor on the products of queries and keys. Default: 1 / sqrt(`width` / `heads`)."""
    biases: Annotated[bool, mark_later(False)] = False
    """Give every linear map of the blocks a bias, which starts at 0; in kinds `decoder` and `emu3` also the head."""
    tie_embeddings: bool = False
    """Use the embedding matrix as the output head as well."""
    rope_theta: Rate = 1e4
    """Base of the rotary position frequencies."""
    rope_fraction: Annotated[Annotated[float, Field(gt=0, le=1)], mark_later(1.0)] = 1.0
    """Fraction of the pairs of features of a head that positions rotate. The frequencies are spread over these
    pairs."""
    norm_epsilon: Rate = 1e-6
    """Constant that prevents division by zero: it is added to the mean square in every RMSNorm and to the variance in
    every LayerNorm."""
    matrix_std: Annotated[Rate, mark_later(1.0)] = 1.0
    """Standard deviation of the initial entries of the matrices of blocks, times the square root of the length of their
    rows; in kinds `decoder` and `emu3` also of an own head."""
    zero_outputs: Annotated[bool, mark_later(False)] = False
    """Begin with zeros in the last matrix of attention and of the feedforward; in kinds `decoder` and `emu3` also in an
    own head."""

    @property
    def side(self) -> int:
        """The width, which all sides are proportional to."""
        return self.width

    def smaller(self, side: int) -> Self:
        """Return a model with one layer of this width and two heads; every other choice is kept."""
        sizes = {
            "layers": 1,
            "width": side,
            "heads": 2,
            "key_value_heads": None if self.key_value_heads in (None, self.heads) else 1,
            "hidden": None if self.hidden is None else 3 * side // 2,
        }
        return self.model_copy(update=sizes)

    @field_validator("heads")
    @classmethod
    def _require_even_heads(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width")
        if width is not None and (width % heads or (width // heads) % 2):
            raise refuse(f"{heads} heads do not split width {width} into equal heads of even size", "heads", "width")
        return heads

    @field_validator("key_value_heads")
    @classmethod
    def _require_even_groups(cls, key_value_heads: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("heads")
        if heads is not None and key_value_heads is not None and heads % key_value_heads:
            raise refuse(f"{key_value_heads} key-value heads do not divide {heads} heads", "key_value_heads", "heads")
        return key_value_heads


class Decoder(Transformer):
    """A causal transformer for text. With the defaults, its blocks are those of arXiv:2510.09378.

    Pre-RMSNorm, rotary positions, LayerNorm of queries and keys over the full width, no biases, plain GELU, own head.
    """

    factory = "gnflow.models.decoder:build_for_data"
    kind: Literal["decoder"] = "decoder"
    embedding_norm: Annotated[bool, mark_later(False)] = False
    """Apply an RMSNorm to the embedding of the tokens."""
    logit_cap: Annotated[Rate | None, mark_later(None)] = None
    """Bound c on the absolute value of a logit z, which becomes z / sqrt(1 + (z / c)^2). Default: no bound."""


class Emu3(Transformer):
    """One decoder and one head for both text and image codes, as in Emu3."""

    factory, reads = "gnflow.models.emu3:build_for_data", "multimodal"
    kind: Literal["emu3"] = "emu3"
    image_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of each image code in the loss. Each text token has weight 1."""


class Janus(Transformer):
    """One decoder that reads images as pixels and writes them as codes, with one adaptor for each, as in Janus."""

    factory, reads = "gnflow.models.janus:build_for_data", "multimodal"
    kind: Literal["janus"] = "janus"
    code_width: Annotated[Count, Unit("features")] = 8
    """Width of the embedding of an image code, before its adaptor."""
    freeze: Listed[Part] = ()
    """Parts that are not trained: `decoder` (the blocks), `text` (its embedding and head), `understanding` (the
    adaptor of images that are read), `generation` (the adaptor of images that are drawn) or `image_head`. Default: all
    parts are trained."""

    @field_validator("freeze")
    @classmethod
    def _require_a_trained_part(cls, freeze: tuple[Part, ...]) -> tuple[Part, ...]:
        if set(freeze) == set(get_args(Part)):
            raise refuse("every part is frozen, so nothing is left to train; leave one out")
        return freeze


Model = Annotated[ModelKind, Open("models", default="decoder")]
