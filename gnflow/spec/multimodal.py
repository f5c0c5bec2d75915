"""`data:` of images and text: sources, image tokenizers, and the form of a row."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gnflow.spec.base import (
    Count,
    DefaultKind,
    Fraction,
    Kind,
    Listed,
    Name,
    Path,
    Shorthand,
    Spec,
    Unit,
    later,
    refuse,
)
from gnflow.spec.data import BPE, Part, SourceKind, Text, Tokenizer, require_apart
from gnflow.spec.open import Open
from gnflow.spec.specials import SPECIALS, Style


class ImageKind(Kind):
    """A source of images. `factory` takes the source, the root of the project and `variant`, and returns `Pictures`."""

    needs: ClassVar[str] = ""
    """As that of a source of text."""


class Digits(ImageKind):
    """The 1,797 handwritten digits that scikit-learn brings along, 8 x 8 in grey, captioned from their labels."""

    factory = "gnflow.data.multimodal.digits:open_digits"
    needs = "gnflow.data.sources.needs:digits"
    kind: Literal["digits"] = "digits"
    captions: Annotated[int, Field(ge=1, le=12)] = 4
    """Wordings in which each image is captioned; each makes a sample of its own."""
    held_out_fraction: Part = 0.2
    """Part of the images held out: the last ones, which other hands wrote."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and colours of an image."""
        return 8, 8, 1


class ImageTable(ImageKind):
    """What sources of image-text rows share."""

    height: Annotated[Count, Unit("pixels")]
    """Images are scaled until they cover this height and `width`, and cut to the middle."""
    width: Annotated[Count, Unit("pixels")]
    """Images are scaled until they cover this width and `height`, and cut to the middle."""
    colours: Literal["rgb", "grey"] = "rgb"
    """What a pixel is: three values, or one."""
    image: Name = "image"
    """The column with the bytes of a PNG or JPEG file, or a mapping that holds them under `bytes`."""
    text: Name = "text"
    """The column that holds the caption."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and colours of an image."""
        return self.height, self.width, 3 if self.colours == "rgb" else 1


class ImageFiles(ImageTable):
    """Parquet files with an image and its caption in every row."""

    factory = "gnflow.data.multimodal.tables:open_files"
    needs = "gnflow.data.sources.needs:image_files"
    kind: Literal["files"] = "files"
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files, named relative to the project root; `*` and `**` are allowed."""
    held_out: Listed[Path] = ()
    """Held-out files. Default: the last `held_out_fraction` of the rows of `paths`."""
    held_out_fraction: Part = 0.05
    """Part of the rows held out when `held_out` names no file."""


class ImageHub(ImageTable):
    """A dataset in Parquet as Hugging Face lays it out: files named after their split."""

    factory = "gnflow.data.multimodal.tables:open_hub"
    needs = "gnflow.data.sources.needs:images"
    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """Name on the hub, or a local directory."""
    split: Name = "train"
    """Split to train on."""
    held_out: Name = "validation"
    """Split to evaluate on, unless `held_out_fraction` is given."""
    held_out_fraction: Annotated[Part | None, later(None)] = None
    """Part of the rows of `split` held out, the last ones, in place of the split `held_out`."""

    @model_validator(mode="after")
    def _held_out_is_not_trained_on(self) -> "ImageHub":
        if self.held_out_fraction is None:
            require_apart(self.split, self.held_out)
        return self


class VQ(Spec):
    """A codebook of image patches, fitted to the training images by k-means."""

    fitted: ClassVar[bool] = True
    kind: Literal["vq"] = "vq"
    patch: Annotated[Count, Unit("pixels")] = 2
    """Side of the patch that one code stands for."""
    codebook: Annotated[int, Field(ge=2, le=1_000_000), Unit("codes")] = 64
    """Number of codes."""
    images: Annotated[Count, Unit("images")] = 8192
    """Training images that the codebook is fitted to, at most; evenly spaced over all of them."""
    iterations: Count = 100
    """Rounds of k-means, unless no patch changes its code before."""


class PretrainedVQ(Spec):
    """`JanusVQVAE` or `Emu3VQVAE` of the package transformers."""

    fitted: ClassVar[bool] = False
    kind: Literal["transformers"] = "transformers"
    path: Path
    """The directory that `save_pretrained` wrote, relative to the project root."""
    patch: Annotated[Count, Unit("pixels")]
    """Side of the patch that one code stands for; checked when the model is opened, so that a plan needs no file."""
    codebook: Annotated[Count, Unit("codes")]
    """Number of codes; checked when the model is opened."""


class Mix(Spec):
    """Rows of each task among those of a micro-batch, as a ratio."""

    understanding: Annotated[int, Field(ge=0, le=1000)] = 2
    """From an image to its caption."""
    text: Annotated[int, Field(ge=0, le=1000)] = 3
    """Text alone."""
    generation: Annotated[int, Field(ge=0, le=1000)] = 5
    """From a caption to its image."""

    @field_validator("generation")
    @classmethod
    def _of_something(cls, generation: int, info: ValidationInfo) -> int:
        if not generation and info.data.get("understanding") == 0 == info.data.get("text"):
            raise refuse("a mix of nothing; give one task at least 1")
        return generation


ImageSource = Annotated[Digits | ImageFiles | ImageHub, Field(discriminator="kind"), Shorthand]
TextSource = Annotated[SourceKind, Open("sources", without=("tokens",))]
ImageTokenizer = Annotated[VQ | PretrainedVQ, Field(discriminator="kind"), Shorthand]


class Multimodal(Spec):
    """Rows of images and text, in the form of Janus or of Emu3."""

    kind: Literal["multimodal"] = "multimodal"
    style: Style
    """Form of a sequence, that of the model: `emu3` has images as codes only, `janus` reads pixels and writes codes."""
    source: ImageSource = Digits()
    """Where images and captions come from."""
    text: TextSource | None = None
    """Where rows of text alone come from; a document longer than a row is cut into samples. Default: the captions."""
    image_tokenizer: Annotated[ImageTokenizer, Field(validate_default=True)] = VQ()
    """How an image becomes codes."""
    understanding_patch: Annotated[Count | None, Unit("pixels"), Field(validate_default=True)] = None
    """Side of a patch that is read as pixels (`janus`). Default: that of `image_tokenizer`."""
    tokenizer: Tokenizer = BPE(vocabulary=360)
    """How captions and other text become tokens."""
    mix: Mix = Mix()
    """Rows of each task."""
    prompt_drop: Fraction = 0.1
    """Part of the captions before training images that is left out (`emu3`) or blanked (`janus`), for guidance."""
    variant: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of what is drawn once for all runs: wordings, dropped prompts and the first centres of k-means."""
    context: Annotated[int, Field(ge=2, validate_default=True), Unit("tokens")] = 48
    """Tokens predicted in one row; no sample is longer than `context` + 1."""

    @field_validator("image_tokenizer")
    @classmethod
    def _codes_tile_an_image(cls, tokenizer: VQ | PretrainedVQ, info: ValidationInfo) -> VQ | PretrainedVQ:
        if "source" in info.data:
            _tiled(info.data["source"].shape, tokenizer.patch, "patch")
        return tokenizer

    @field_validator("understanding_patch")
    @classmethod
    def _patches_tile_an_image(cls, patch: int | None, info: ValidationInfo) -> int | None:
        if patch is not None and info.data.get("style") == "emu3":
            raise refuse("`emu3` reads images as codes; remove this key")
        if patch is not None and "source" in info.data:
            _tiled(info.data["source"].shape, patch)
        return patch

    @field_validator("context")
    @classmethod
    def _holds_an_image(cls, context: int, info: ValidationInfo) -> int:
        if all(name in info.data for name in ("style", "source", "image_tokenizer", "understanding_patch")):
            (height, width, _), patch = info.data["source"].shape, info.data["image_tokenizer"].patch
            tokens = (height // patch) * (width // patch) + 4
            if info.data["style"] == "emu3":
                tokens += height // patch + 3
            else:
                side = info.data["understanding_patch"] or patch
                tokens = max(tokens, (height // side) * (width // side) + 4)
            if context + 1 < tokens:
                raise refuse(f"one image takes {tokens} tokens before its caption is counted; give at least {tokens}")
        return context

    @property
    def text_vocabulary(self) -> int:
        """Ids of text and of the marks in `specials`."""
        return self.tokenizer.vocabulary + len(SPECIALS[self.style])

    @property
    def codebook(self) -> int:
        """Number of image codes; their ids follow those of text."""
        return self.image_tokenizer.codebook

    @property
    def vocabulary(self) -> int:
        """Number of distinct ids."""
        return self.text_vocabulary + self.codebook

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of an image in codes."""
        return _grid(self.source.shape, self.image_tokenizer.patch)

    @property
    def image_tokens(self) -> int:
        """Codes of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_side(self) -> int:
        """Side of a patch that is read as pixels."""
        return self.understanding_patch or self.image_tokenizer.patch

    @property
    def understanding_tokens(self) -> int:
        """Tokens of an image that is read: patches (`janus`) or codes (`emu3`)."""
        height, width = _grid(self.source.shape, self.patch_side)
        return height * width

    @property
    def patch_values(self) -> int:
        """Pixel values that come with a token: those of a patch for `janus`, none for `emu3`."""
        return self.patch_side**2 * self.source.shape[2] if self.style == "janus" else 0

    @property
    def channels(self) -> int:
        """Numbers that come with a token: its id, its group and its pixel values."""
        return 2 + self.patch_values

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of one token in a micro-batch."""
        return (self.channels,)

    @property
    def meaning(self) -> dict[str, object]:
        """The keys that decide what the ids stand for. Trained weights fit other data where these are the same.

        Tokenizers that are fitted depend on the images and the text that they are fitted to, and on what was drawn.
        """
        keys = {"style", "tokenizer", "image_tokenizer"}
        if self.tokenizer.fitted or self.image_tokenizer.fitted:
            keys |= {"source", "text", "variant"}
        return {key: value for key, value in self.model_dump(mode="json").items() if key in keys}


def _grid(shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    return shape[0] // patch, shape[1] // patch


def _tiled(shape: tuple[int, int, int], patch: int, *at: str) -> None:
    height, width, _ = shape
    if height % patch or width % patch:
        raise refuse(f"patches of {patch} x {patch} pixels do not tile an image of {height} x {width}", *at)


Data = Annotated[Text | Multimodal, Field(discriminator="kind"), DefaultKind("text")]
