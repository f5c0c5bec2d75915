"""The section `data:` for text: corpora, tokenizers and the length of a row."""

import codecs
from pathlib import PurePath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gnflow.spec.base import (
    Count,
    Fraction,
    Kind,
    Listed,
    Name,
    Path,
    Paths,
    Shorthand,
    Spec,
    Unit,
    mark_later,
    refuse,
)
from gnflow.spec.open import Open
from gnflow.spec.splits import overlap


def _normalize_encoding(name: str) -> str:
    """Return the normal name of a text encoding. Raises an error for an unknown encoding."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise refuse(
            f"`{name}` is not an encoding that Python knows; use `utf-8`, `latin-1`, `cp1252` or another"
        ) from None
    return codecs.lookup(name).name


Part = Annotated[Fraction, Field(gt=0)]
Encoding = Annotated[str, AfterValidator(_normalize_encoding)]


class SourceKind(Kind):
    """A source of text. `factory` takes the source and the root of the project, and returns an object that opens it.

    gnflow/data/sources/opened.py defines these objects: `Opened` for text, `Ready` for token ids.
    """

    needs: ClassVar[str] = ""
    """`module:function`, if there is one. `gnflow check` calls it with the source and the root of the project, and it
    raises DataError or EnvironmentProblem for what a run will lack. It should be quick, and read no file."""
    ready: ClassVar[bool] = False
    """Whether the source gives token ids instead of text. Such a source takes no tokenizer."""

    @property
    def label(self) -> str:
        """The prefix of the names of directories that are prepared from this source."""
        return self.kind

    def entries(self, tokenizer: "Tokenizer") -> int:
        """Return the number of distinct ids. A source whose ids are `ready` has to define this itself."""
        return tokenizer.vocabulary

    @property
    def is_sequential(self) -> bool:
        """Whether training takes rows in the order of the source. Otherwise it shuffles them anew in each epoch."""
        return False

    def ignore_order(self) -> Self:
        """Return the source without its order of rows, which does not change its tokens."""
        return self


class Shakespeare(SourceKind):
    """The complete plays of Shakespeare (5.0 MB, public domain); three of them are held out."""

    factory = "gnflow.data.sources.shakespeare:open_plays"
    needs = "gnflow.data.sources.needs:require_plays"
    kind: Literal["shakespeare"] = "shakespeare"
    held_out_fraction: Annotated[Part | None, mark_later(None)] = None
    """Fraction of the plays to hold out, counted from the last. Default: three fixed plays are held out."""


class Files(SourceKind):
    """Your own text, JSONL or Parquet files. Paths are relative to the project root and may contain `*` and `**`."""

    factory = "gnflow.data.sources.files:open_files"
    needs = "gnflow.data.sources.needs:require_files"
    kind: Literal["files"] = "files"
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files. A .txt or .md file is one document; each row of a .jsonl or .parquet file is one document. Text
    and JSONL may be compressed (.gz or .zst, such as .jsonl.zst)."""
    held_out: Listed[Path] = ()
    """Held-out files. Default: the last `held_out_fraction` of the documents of `paths`."""
    held_out_fraction: Part = 0.05
    """Fraction of the documents to hold out if `held_out` is empty. If there is only one document, it is the fraction
    of the text."""
    column: Name = "text"
    """The field that holds the text in a JSONL or Parquet row. `meta.text` means the field `text` of the mapping
    `meta`."""
    encoding: Annotated[Encoding, mark_later("utf-8")] = "utf-8"
    """Encoding of text and JSONL files, for example `utf-8` or `latin-1`."""


class Package(SourceKind):
    """Text files of one version of an installed Python distribution. The text is the same on every machine."""

    factory = "gnflow.data.sources.package:open_package"
    needs = "gnflow.data.sources.needs:require_package"
    kind: Literal["package"] = "package"
    distribution: Name
    """Name of the distribution, as for `pip install`."""
    version: Name
    """Required version of the distribution. Any other installed version is refused."""
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files, each of them one document. Paths are relative to the directory of installed packages and may
    contain `*` and `**`."""
    held_out: Listed[Path] = ()
    """Held-out files, which are never trained on. Default: the last `held_out_fraction` of the files of `paths`."""
    held_out_fraction: Annotated[Part, mark_later(0.05)] = 0.05
    """Fraction of the files to hold out if `held_out` is empty."""
    encoding: Annotated[Encoding, mark_later("utf-8")] = "utf-8"
    """Encoding of the files, for example `utf-8` or `latin-1`."""

    @property
    def label(self) -> str:
        """The name of the distribution."""
        return self.distribution


class HuggingFace(SourceKind):
    """A dataset that `datasets.load_dataset` can open."""

    factory = "gnflow.data.sources.huggingface:open_dataset"
    needs = "gnflow.data.sources.needs:require_dataset"
    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """Name of the dataset on the hub, or a local directory."""
    name: str | None = None
    """Configuration of the dataset, for example `en`. Default: the dataset's own default."""
    split: str = "train"
    """Split to train on."""
    held_out: str = "validation"
    """Split to evaluate on. It is not used if `held_out_fraction` is given."""
    held_out_fraction: Annotated[Part | None, mark_later(None)] = None
    """Fraction of the documents of `split` to hold out, counted from the last. Default: the split `held_out` is used
    instead."""
    column: str = "text"
    """The column that holds the text. `meta.text` means the field `text` of the mapping `meta`."""
    documents: Annotated[Count | None, Unit("documents")] = None
    """Number of documents to use, counted from the first. Default: all documents."""

    @property
    def label(self) -> str:
        """The name of the dataset, without that of its owner."""
        return PurePath(self.path).name

    @model_validator(mode="after")
    def _require_held_out_apart(self) -> "HuggingFace":
        if self.held_out_fraction is None:
            require_apart(self.split, self.held_out)
        return self


def require_apart(split: str, held_out: str) -> None:
    """Raise an error if the held-out split shares rows with the training split."""
    if overlap(split, held_out):
        raise refuse(
            f"the split `{held_out}` to hold out shares rows with `{split}` to train on; name another split, or give "
            "`held_out_fraction` (such as 0.05) in place of `held_out` to hold out the last part of it",
            "held_out",
            "split",
        )


class Tokens(SourceKind):
    """Ready token ids: one-dimensional integer `.npy` arrays, or `.bin` shards of llm.c."""

    factory = "gnflow.data.sources.tokens:open_ids"
    needs = "gnflow.data.sources.needs:require_ids"
    ready = True
    kind: Literal["tokens"] = "tokens"
    train: Paths
    """Files of token ids to train on, in the order in which they are read. Paths are relative to the project root and
    may contain `*` and `**`."""
    held_out: Paths | None = None
    """Files of token ids to evaluate on, which are never trained on. Default: the last `held_out_fraction` of
    `train`."""
    held_out_fraction: Annotated[Part, mark_later(0.05)] = 0.05
    """Fraction of the tokens of `train` to hold out if `held_out` is not given."""
    vocabulary: Annotated[Count, Unit("tokens")]
    """Number of distinct ids. Every id must be less than this number."""
    order: Annotated[Literal["shuffled", "sequential"], mark_later("shuffled")] = "shuffled"
    """Order in which training takes rows: shuffled anew in each epoch, or that of the files (`sequential`)."""

    def entries(self, tokenizer: "Tokenizer") -> int:
        """Return the number of distinct ids."""
        return self.vocabulary

    @property
    def is_sequential(self) -> bool:
        """Whether training takes rows in the order of the files."""
        return self.order == "sequential"

    def ignore_order(self) -> Self:
        """Return the source with the default order."""
        return self.model_copy(update={"order": "shuffled"})

    @field_validator("held_out")
    @classmethod
    def _require_held_out_apart(cls, held_out: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        train = {PurePath(name) for name in info.data.get("train", ())}
        if held_out is not None and train and train <= {PurePath(name) for name in held_out}:
            raise refuse(
                "`train` and `held_out` are the same file; name another one, "
                "or remove this key: the last `held_out_fraction` of `train` is held out then"
            )
        return held_out


class BPE(Spec):
    """A byte-level BPE tokenizer that is trained on the training text."""

    fitted: ClassVar[bool] = True
    kind: Literal["bpe"] = "bpe"
    vocabulary: Annotated[int, Field(ge=257, le=1_000_000), Unit("tokens")] = 512
    """Number of tokens: 256 bytes, one end-of-text mark, and the merges."""


class PretrainedTokenizer(Spec):
    """A Hugging Face tokenizer, stored in a `tokenizer.json`."""

    fitted: ClassVar[bool] = False
    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """The file `tokenizer.json`, or the directory that contains it."""
    vocabulary: Annotated[Count, Unit("tokens")]
    """Number of tokens of the tokenizer. A plan uses this number without the file; it is checked when the file is
    opened."""
    added_tokens: Annotated[Literal["match", "text"], mark_later("match")] = "match"
    """How a document's spelling of an added token that is not special, such as `<think>`, is read: as one id (`match`)
    or as ordinary text (`text`). Special tokens, such as `<|endoftext|>`, are always read as ordinary text."""


class Bytes(Spec):
    """One token for each byte and one end-of-text mark, 257 tokens in all. Nothing is trained."""

    fitted: ClassVar[bool] = False
    kind: Literal["bytes"] = "bytes"

    @property
    def vocabulary(self) -> int:
        """Number of distinct ids."""
        return 257


Source = Annotated[SourceKind, Open("sources")]
Tokenizer = Annotated[BPE | PretrainedTokenizer | Bytes, Field(discriminator="kind"), Shorthand]


class Text(Spec):
    """Rows of text for next-token prediction."""

    kind: Literal["text"] = "text"
    source: Source = Shakespeare()
    """The source of the text."""
    tokenizer: Tokenizer | None = None
    """The tokenizer that turns text into tokens. Default: that of the model for kind `huggingface`, else `bpe`. Leave
    it out if the source has ready `tokens`."""
    context: Annotated[int, Field(ge=2), Unit("tokens")] = 64
    """Number of tokens that are predicted in one row."""

    @field_validator("tokenizer")
    @classmethod
    def _refuse_needless_tokenizer(cls, tokenizer: object, info: ValidationInfo) -> object:
        source = info.data.get("source")
        if tokenizer is not None and source is not None and source.ready:
            raise refuse("a source of ready tokens takes no tokenizer; remove this key")
        return tokenizer

    @property
    def cut_by(self) -> BPE | PretrainedTokenizer | Bytes | None:
        """The tokenizer that the spec gives or the default one; None if the ids are ready."""
        return None if self.source.ready else self.tokenizer or BPE()

    @property
    def vocabulary(self) -> int:
        """Number of distinct token ids."""
        return self.source.entries(self.tokenizer or BPE())

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of one token in a micro-batch: a token is its id alone."""
        return ()

    @property
    def meaning(self) -> dict[str, object]:
        """The keys that decide what the ids stand for. Trained weights fit other data if these keys are the same.

        A tokenizer that is fitted depends on the text that it is fitted to. The meaning of ready ids is not known.
        """
        if self.cut_by is None:
            return {}
        source = {"source": self.source.model_dump(mode="json")} if self.cut_by.fitted else {}
        return {**source, "tokenizer": self.cut_by.model_dump(mode="json")}
