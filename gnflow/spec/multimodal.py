"""The section `data:` for images and text: sources, image tokenizers, and the form of a row."""

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
    mark_later,
    refuse,
)
from gnflow.spec.data import BPE, Part, SourceKind, Text, Tokenizer, require_apart
from gnflow.spec.open import Open
from gnflow.spec.specials import SPECIALS, Style


class ImageKind(Kind):
    """A source of images. `factory` takes the source, the root of the project and `variant`, and returns `Pictures`."""

    needs: ClassVar[str] = ""
    """`module:function`, as in a source of text."""


class Digits(ImageKind):
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels in grey, with captions made from their labels."""

    factory = "gnflow.data.multimodal.digits:open_digits"
    needs = "gnflow.data.sources.needs:require_digits"
    kind: Literal["digits"] = "digits"
    captions: Annotated[int, Field(ge=1, le=12)] = 4
    """Number of captions for each image. Each caption makes a separate sample."""
    held_out_fraction: Part = 0.2
    """Fraction of the images to hold out, counted from the last. These were written by other people than the first
    ones."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and colours of an image."""
        return 8, 8, 1


class ImageTable(ImageKind):
    """The keys that sources of image-text rows share."""

    height: Annotated[Count, Unit("pixels")]
    """Height of the images. Each image is scaled until it covers `height` and `width`, then cropped to its centre."""
    width: Annotated[Count, Unit("pixels")]
    """Width of the images. Each image is scaled until it covers `height` and `width`, then cropped to its centre."""
    colours: Literal["rgb", "grey"] = "rgb"
    """Colours of the images: `rgb` has three values for each pixel, `grey` has one."""
    image: Name = "image"
    """The column that holds the image: the bytes of a PNG or JPEG file, or a mapping with these bytes under the key
    `bytes`."""
    text: Name = "text"
    """The column that holds the caption."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and colours of an image."""
        return self.height, self.width, 3 if self.colours == "rgb" else 1


class ImageFiles(ImageTable):
    """Parquet files with an image and its caption in every row."""

    factory = "gnflow.data.multimodal.tables:open_files"
    needs = "gnflow.data.sources.needs:require_image_files"
    kind: Literal["files"] = "files"
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files. Paths are relative to the project root and may contain `*` and `**`."""
    held_out: Listed[Path] = ()
    """Held-out files. Default: the last `held_out_fraction` of the rows of `paths`."""
    held_out_fraction: Part = 0.05
    """Fraction of the rows to hold out if `held_out` is empty."""


class ImageHub(ImageTable):
    """A dataset of Parquet files that are named after their splits, as on Hugging Face."""

    factory = "gnflow.data.multimodal.tables:open_hub"
    needs = "gnflow.data.sources.needs:require_images"
    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """Name of the dataset on the hub, or a local directory."""
    split: Name = "train"
    """Split to train on."""
    held_out: Name = "validation"
    """Split to evaluate on. It is not used if `held_out_fraction` is given."""
    held_out_fraction: Annotated[Part | None, mark_later(None)] = None
    """Fraction of the rows of `split` to hold out, counted from the last. Default: the split `held_out` is used
    instead."""

    @model_validator(mode="after")
    def _require_held_out_apart(self) -> "ImageHub":
        if self.held_out_fraction is None:
            require_apart(self.split, self.held_out)
        return self


class VQ(Spec):
    """A codebook of image patches that is fitted to the training images by k-means."""

    fitted: ClassVar[bool] = True
    kind: Literal["vq"] = "vq"
    patch: Annotated[Count, Unit("pixels")] = 2
    """Side of the square patch that one code represents."""
    codebook: Annotated[int, Field(ge=2, le=1_000_000), Unit("codes")] = 64
    """Number of codes in the codebook."""
    images: Annotated[Count, Unit("images")] = 8192
    """Largest number of training images to which the codebook is fitted. They are spaced evenly over all images."""
    iterations: Count = 100
    """Largest number of k-means iterations. Fitting ends earlier if no patch changes its code."""


class PretrainedVQ(Spec):
    """The image tokenizer `JanusVQVAE` or `Emu3VQVAE` of the package transformers."""

    fitted: ClassVar[bool] = False
    kind: Literal["transformers"] = "transformers"
    path: Path
    """The directory that `save_pretrained` wrote. The path is relative to the project root."""
    patch: Annotated[Count, Unit("pixels")]
    """Side of the square patch that one code represents. A plan uses this number without the model; it is checked when
    the model is opened."""
    codebook: Annotated[Count, Unit("codes")]
    """Number of codes in the codebook. It is checked when the model is opened."""


class Mix(Spec):
    """The shares of the three tasks in the rows of a micro-batch. Only their ratios matter."""

    understanding: Annotated[int, Field(ge=0, le=1000)] = 2
    """Share of the rows in which an image is followed by its caption."""
    text: Annotated[int, Field(ge=0, le=1000)] = 3
    """Share of the rows that contain only text."""
    generation: Annotated[int, Field(ge=0, le=1000)] = 5
    """Share of the rows in which a caption is followed by its image."""

    @field_validator("generation")
    @classmethod
    def _require_rows(cls, generation: int, info: ValidationInfo) -> int:
        if not generation and info.data.get("understanding") == 0 == info.data.get("text"):
            raise refuse("all tasks of the mix are 0; give at least one of them a positive share")
        return generation


ImageSource = Annotated[Digits | ImageFiles | ImageHub, Field(discriminator="kind"), Shorthand]
TextSource = Annotated[SourceKind, Open("sources", without=("tokens",))]
ImageTokenizer = Annotated[VQ | PretrainedVQ, Field(discriminator="kind"), Shorthand]


class Multimodal(Spec):
    """Rows of images and text, in the format of Janus or of Emu3."""

    kind: Literal["multimodal"] = "multimodal"
    style: Style
    """Format of a row. It must equal the kind of the model: `emu3` has images as codes only, `janus` reads pixels and
    writes codes."""
    source: ImageSource = Digits()
    """The source of images and captions."""
    text: TextSource | None = None
    """The source of rows that contain only text. A document longer than a row is cut into several samples. Default:
    the captions."""
    image_tokenizer: Annotated[ImageTokenizer, Field(validate_default=True)] = VQ()
    """The tokenizer that turns images into codes."""
    understanding_patch: Annotated[Count | None, Unit("pixels"), Field(validate_default=True)] = None
    """Side of the square patches that `janus` reads as pixels. Default: the `patch` of `image_tokenizer`."""
    tokenizer: Tokenizer = BPE(vocabulary=360)
    """The tokenizer that turns captions and other text into tokens."""
    mix: Mix = Mix()
    """The shares of the tasks in the rows of a micro-batch."""
    prompt_drop: Fraction = 0.1
    """Fraction of the training images to draw whose caption is left out (`emu3`) or blanked (`janus`). Classifier-free
    guidance needs such images."""
    variant: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of random choices that are the same in all runs: captions, dropped prompts and the first centres of
    k-means."""
    context: Annotated[int, Field(ge=2, validate_default=True), Unit("tokens")] = 48
    """Number of tokens that are predicted in one row. No sample is longer than `context` + 1."""

    @field_validator("image_tokenizer")
    @classmethod
    def _require_tiling_codes(cls, tokenizer: VQ | PretrainedVQ, info: ValidationInfo) -> VQ | PretrainedVQ:
        if "source" in info.data:
            _require_tiling(info.data["source"].shape, tokenizer.patch, "patch")
        return tokenizer

    @field_validator("understanding_patch")
    @classmethod
    def _require_tiling_patches(cls, patch: int | None, info: ValidationInfo) -> int | None:
        if patch is not None and info.data.get("style") == "emu3":
            raise refuse("`emu3` reads images as codes; remove this key")
        if patch is not None and "source" in info.data:
            _require_tiling(info.data["source"].shape, patch)
        return patch

    @field_validator("context")
    @classmethod
    def _require_room_for_an_image(cls, context: int, info: ValidationInfo) -> int:
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
        return _count_patches(self.source.shape, self.image_tokenizer.patch)

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
        height, width = _count_patches(self.source.shape, self.patch_side)
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
        """The keys that decide what the ids stand for. Trained weights fit other data if these keys are the same.

        Tokenizers that are fitted depend on the images and the text that they are fitted to, and on the draws.
        """
        keys = {"style", "tokenizer", "image_tokenizer"}
        if self.tokenizer.fitted or self.image_tokenizer.fitted:
            keys |= {"source", "text", "variant"}
        return {key: value for key, value in self.model_dump(mode="json").items() if key in keys}


def _count_patches(shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    return shape[0] // patch, shape[1] // patch


def _require_tiling(shape: tuple[int, int, int], patch: int, *at: str) -> None:
    height, width, _ = shape
    if height % patch or width % patch:
        raise refuse(f"patches of {patch} x {patch} pixels do not tile an image of {height} x {width}", *at)


Data = Annotated[Text | Multimodal, Field(discriminator="kind"), DefaultKind("text")]
