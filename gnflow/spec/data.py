"""`data:` of text: corpora, tokenizers and the length of a row."""

import codecs
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gnflow.spec.base import Count, Fraction, Listed, Name, Path, Shorthand, Spec, Unit, later, refuse
from gnflow.spec.splits import overlap


def _encoding(name: str) -> str:
    """Refuses what is no encoding of text."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise refuse(
            f"`{name}` is no encoding that Python knows; use `utf-8`, `latin-1`, `cp1252` or another"
        ) from None
    return codecs.lookup(name).name


Part = Annotated[Fraction, Field(gt=0)]
Encoding = Annotated[str, AfterValidator(_encoding)]


class Shakespeare(Spec):
    """The complete plays (5.0 MB, public domain); three of them are held out."""

    kind: Literal["shakespeare"] = "shakespeare"
    held_out_fraction: Annotated[Part | None, later(None)] = None
    """Part of the plays held out, the last ones, in place of the three."""


class Files(Spec):
    """Text, JSONL or Parquet files, named relative to the project root; `*` and `**` are allowed."""

    kind: Literal["files"] = "files"
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files: .txt, .md (one document each), .jsonl or .parquet (one document a row)."""
    held_out: Listed[Path] = ()
    """Held-out files. Default: the last `held_out_fraction` of the documents of `paths`."""
    held_out_fraction: Part = 0.05
    """Part of the documents (of the text, when there is one document) held out when `held_out` names no file."""
    column: Name = "text"
    """The field of a JSONL or Parquet row that holds the text."""
    encoding: Annotated[Encoding, later("utf-8")] = "utf-8"
    """How text and JSONL files are encoded."""


class Package(Spec):
    """Text files of an installed distribution, at one version: source code that every machine has the same of."""

    kind: Literal["package"] = "package"
    distribution: Name
    """Its name, as `pip install` takes it."""
    version: Name
    """The version whose text this is; another one that is installed is refused."""
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files, one document each, named relative to where packages are installed; `*` and `**` are allowed."""
    held_out: Listed[Path] = ()
    """Held-out files, which are never trained on. Default: the last `held_out_fraction` of the files of `paths`."""
    held_out_fraction: Annotated[Part, later(0.05)] = 0.05
    """Part of the files held out when `held_out` names none."""
    encoding: Annotated[Encoding, later("utf-8")] = "utf-8"
    """How the files are encoded."""


class HuggingFace(Spec):
    """A dataset that `datasets.load_dataset` can open."""

    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """Name on the hub, or a local directory."""
    name: str | None = None
    """Configuration of the dataset, for example `en`."""
    split: str = "train"
    """Split to train on."""
    held_out: str = "validation"
    """Split to evaluate on, unless `held_out_fraction` is given."""
    held_out_fraction: Annotated[Part | None, later(None)] = None
    """Part of the documents of `split` held out, the last ones, in place of the split `held_out`."""
    column: str = "text"
    """The column that holds the text."""
    documents: Annotated[Count | None, Unit("documents")] = None
    """Take only the first so many documents."""

    @model_validator(mode="after")
    def _held_out_is_not_trained_on(self) -> "HuggingFace":
        if self.held_out_fraction is None:
            require_apart(self.split, self.held_out)
        return self


def require_apart(split: str, held_out: str) -> None:
    """Refuses a held-out split that shares rows with the split to train on."""
    if overlap(split, held_out):
        raise refuse(
            f"the split `{held_out}` to hold out shares rows with `{split}` to train on; name another split, or give "
            "`held_out_fraction` (such as 0.05) in place of `held_out` to hold out the last part of it",
            "held_out",
            "split",
        )


class Tokens(Spec):
    """Ready token ids: one-dimensional integer `.npy` arrays, named relative to the project root."""

    kind: Literal["tokens"] = "tokens"
    train: Path
    """Token ids to train on."""
    held_out: Path | None = None
    """Token ids to evaluate on. Default: the last `held_out_fraction` of `train`."""
    held_out_fraction: Annotated[Part, later(0.05)] = 0.05
    """Part of the tokens of `train` held out when `held_out` names no file."""
    vocabulary: Annotated[Count, Unit("tokens")]
    """Number of distinct ids; every id must be below it."""

    @field_validator("held_out")
    @classmethod
    def _held_out_is_not_trained_on(cls, held_out: str | None, info: ValidationInfo) -> str | None:
        if held_out is not None and PurePath(held_out) == PurePath(info.data.get("train", "")):
            raise refuse(
                "`train` and `held_out` are the same file; name another one, "
                "or remove this key: the last `held_out_fraction` of `train` is held out then"
            )
        return held_out


class BPE(Spec):
    """Byte-level BPE, trained on the training text."""

    kind: Literal["bpe"] = "bpe"
    vocabulary: Annotated[int, Field(ge=257, le=1_000_000), Unit("tokens")] = 512
    """Entries: 256 bytes, one end-of-text mark, and merges."""


class PretrainedTokenizer(Spec):
    """A `tokenizer.json` as Hugging Face writes it."""

    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """The file, or a directory that holds it."""
    vocabulary: Annotated[Count, Unit("tokens")]
    """Entries of the tokenizer; checked when it is opened, so that a plan needs no file."""
    added_tokens: Annotated[Literal["match", "text"], later("match")] = "match"
    """Added tokens that are not special, such as `<think>`, where a document spells them: one id (`match`), or read as
    any other text is (`text`). Special tokens, such as `<|endoftext|>`, are always read as text."""


class Bytes(Spec):
    """One token a byte, and one end-of-text mark: 257 entries, nothing to train."""

    kind: Literal["bytes"] = "bytes"


def entries(tokenizer: BPE | PretrainedTokenizer | Bytes) -> int:
    """Number of distinct ids that a tokenizer gives."""
    return 257 if isinstance(tokenizer, Bytes) else tokenizer.vocabulary


Documents = Shakespeare | Files | Package | HuggingFace
Source = Annotated[Shakespeare | Files | Package | HuggingFace | Tokens, Field(discriminator="kind"), Shorthand]
Tokenizer = Annotated[BPE | PretrainedTokenizer | Bytes, Field(discriminator="kind"), Shorthand]


class Text(Spec):
    """Rows of text for next-token prediction."""

    kind: Literal["text"] = "text"
    source: Source = Shakespeare()
    """Where the text comes from."""
    tokenizer: Tokenizer | None = None
    """How text becomes tokens. Default: `bpe`. Ready `tokens` take none."""
    context: Annotated[int, Field(ge=2), Unit("tokens")] = 64
    """Tokens predicted in one row."""

    @field_validator("tokenizer")
    @classmethod
    def _tokens_need_no_tokenizer(cls, tokenizer: object, info: ValidationInfo) -> object:
        if tokenizer is not None and isinstance(info.data.get("source"), Tokens):
            raise refuse("ready tokens take no tokenizer; remove this key")
        return tokenizer

    @property
    def vocabulary(self) -> int:
        """Number of distinct token ids."""
        return self.source.vocabulary if isinstance(self.source, Tokens) else entries(self.tokenizer or BPE())
