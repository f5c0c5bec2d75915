"""`model:`: the architectures a spec may name."""

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator

from gnflow.spec.base import Count, Kind, Listed, Rate, Unit, refuse
from gnflow.spec.open import Open

Part = Literal["decoder", "text", "understanding", "generation", "image_head"]


class ModelKind(Kind):
    """A model. `factory` takes the model's section, the data's section and the attention kernel; it returns a Model."""

    reads: ClassVar[Literal["text", "multimodal"]] = "text"
    """The kind of data that it is a model of."""

    @property
    def side(self) -> int:
        """A length that the sides of its matrices go with; 1 where there is none."""
        return 1

    def smaller(self, side: int) -> Self:
        """The same with one layer and sides of this length, for `gnflow verify`; itself where nothing can be cut."""
        return self


class Transformer(ModelKind):
    """A causal transformer; the defaults are the block of arXiv:2510.09378.

    Pre-RMSNorm, rotary positions, LayerNorm of queries and keys over the full width, no biases, plain GELU, own head.
    """

    kind: Literal["decoder", "emu3", "janus"]
    layers: Count = 3
    """Transformer blocks."""
    width: Annotated[Count, Unit("features")] = 64
    """Features of the residual stream."""
    heads: Annotated[Count, Field(validate_default=True)] = 4
    """Attention heads; must divide `width` into an even head size."""
    key_value_heads: Count | None = None
    """Heads of keys and values (grouped-query attention); must divide `heads`. Default: as many as `heads`."""
    feedforward: Literal["gelu", "swiglu"] = "gelu"
    """`gelu` has two matrices, `swiglu` three."""
    hidden: Annotated[Count | None, Unit("features")] = None
    """Features inside the feedforward. Default: 4 x `width`."""
    qk_norm: Literal["full", "head", "none"] = "full"
    """LayerNorm of queries and keys: over the full width before the split into heads, per head, or none."""
    tie_embeddings: bool = False
    """Use the embedding as the output head."""
    rope_theta: Rate = 1e4
    """Base of the rotary frequencies."""
    norm_epsilon: Rate = 1e-6
    """Added to the mean square in every RMSNorm and to the variance in every LayerNorm."""

    @property
    def side(self) -> int:
        """The width."""
        return self.width

    def smaller(self, side: int) -> Self:
        """One layer of this width with two heads; every other choice is kept."""
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
    def _splits_the_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width")
        if width is not None and (width % heads or (width // heads) % 2):
            raise refuse(f"{heads} heads do not split width {width} into equal heads of even size", "heads", "width")
        return heads

    @field_validator("key_value_heads")
    @classmethod
    def _groups_the_heads(cls, key_value_heads: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("heads")
        if heads is not None and key_value_heads is not None and heads % key_value_heads:
            raise refuse(f"{key_value_heads} key-value heads do not divide {heads} heads", "key_value_heads", "heads")
        return key_value_heads


class Decoder(Transformer):
    """A causal transformer over text; the defaults are the block of arXiv:2510.09378.

    Pre-RMSNorm, rotary positions, LayerNorm of queries and keys over the full width, no biases, plain GELU, own head.
    """

    factory = "gnflow.models.decoder:for_data"
    kind: Literal["decoder"] = "decoder"


class Emu3(Transformer):
    """One decoder and one head over text and image codes, as Emu3 has it."""

    factory, reads = "gnflow.models.emu3:for_data", "multimodal"
    kind: Literal["emu3"] = "emu3"
    image_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of an image code in the loss; a token of text has 1."""


class Janus(Transformer):
    """Images are read as pixels and written as codes, each by a path of its own into one decoder, as Janus has it."""

    factory, reads = "gnflow.models.janus:for_data", "multimodal"
    kind: Literal["janus"] = "janus"
    code_width: Annotated[Count, Unit("features")] = 8
    """Features of an image code before the adaptor."""
    freeze: Listed[Part] = ()
    """Parts that take no update: the blocks; text embedding and head; either path into the decoder; the image head."""

    @field_validator("freeze")
    @classmethod
    def _something_moves(cls, freeze: tuple[Part, ...]) -> tuple[Part, ...]:
        if set(freeze) == set(get_args(Part)):
            raise refuse("every part is frozen, and nothing is left to train; leave one out")
        return freeze


Model = Annotated[ModelKind, Open("models", default="decoder")]
