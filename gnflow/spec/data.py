"""The section `data:` for text: corpora, tokenizers and the length of a row."""

import codecs
from pathlib import PurePath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gnflow.spec.base import Count, Fraction, Kind, Listed, Name, Path, Shorthand, Spec, Unit, mark_later, refuse
from gnflow.spec.open import Open
from gnflow.spec.splits import overlap


def _normalize_encoding(name: str) -> str:
    """Return the normal name of a text encoding. Raises an error for an unknown encoding."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise refuse(
            f"`{name}` is no encoding that Python knows; use `utf-8`, `latin-1`, `cp1252` or another"
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


class Shakespeare(SourceKind):
    """The complete plays of Shakespeare (5.0 MB, public domain); three of them are held out."""

    factory = "gnflow.data.sources.shakespeare:open_plays"
    needs = "gnflow.data.sources.needs:plays"
    kind: Literal["shakespeare"] = "shakespeare"
    held_out_fraction: Annotated[Part | None, mark_later(None)] = None
    """Fraction of the plays to hold out: the last ones, instead of the three."""


class Files(SourceKind):
    """Text, JSONL or Parquet files of your own. Paths are relative to the project root; `*` and `**` are allowed."""

    factory = "gnflow.data.sources.files:open_files"
    needs = "gnflow.data.sources.needs:files"
    kind: Literal["files"] = "files"
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files: .txt, .md (one document each), .jsonl or .parquet (one document a row)."""
    held_out: Listed[Path] = ()
    """Held-out files. Default: the last `held_out_fraction` of the documents of `paths`."""
    held_out_fraction: Part = 0.05
    """Fraction of the documents (or of the text, if there is one document) to hold out when `held_out` names no
    file."""
    column: Name = "text"
    """The field of a JSONL or Parquet row that holds the text; `meta.text` is the field `text` of the mapping
    `meta`."""
    encoding: Annotated[Encoding, mark_later("utf-8")] = "utf-8"
    """How text and JSONL files are encoded."""


class Package(SourceKind):
    """Text files of an installed Python distribution, at one version: source code that is the same on every machine."""

    factory = "gnflow.data.sources.package:open_package"
    needs = "gnflow.data.sources.needs:package"
    kind: Literal["package"] = "package"
    distribution: Name
    """Name of the distribution, as in `pip install`."""
    version: Name
    """Version of the distribution. If another version is installed, it is refused."""
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files, one document each, relative to the directory of installed packages; `*` and `**` are allowed."""
    held_out: Listed[Path] = ()
    """Held-out files, which are never trained on. Default: the last `held_out_fraction` of the files of `paths`."""
    held_out_fraction: Annotated[Part, mark_later(0.05)] = 0.05
    """Fraction of the files to hold out when `held_out` names none."""
    encoding: Annotated[Encoding, mark_later("utf-8")] = "utf-8"
    """Encoding of the files."""

    @property
    def label(self) -> str:
        """The name of the distribution."""
        return self.distribution


class HuggingFace(SourceKind):
    """A dataset that `datasets.load_dataset` can open."""

    factory = "gnflow.data.sources.huggingface:open_dataset"
    needs = "gnflow.data.sources.needs:dataset"
    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """Name of the dataset on the hub, or a local directory."""
    name: str | None = None
    """Configuration of the dataset, for example `en`."""
    split: str = "train"
    """Split to train on."""
    held_out: str = "validation"
    """Split to evaluate on, unless `held_out_fraction` is given."""
    held_out_fraction: Annotated[Part | None, mark_later(None)] = None
    """Part of the documents of `split` held out, the last ones, in place of the split `held_out`."""
    column: str = "text"
    """The column that holds the text; `meta.text` is the field `text` of the mapping `meta`."""
    documents: Annotated[Count | None, Unit("documents")] = None
    """Number of documents to use, from the first. Default: all."""

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
    """Ready token ids: one-dimensional integer `.npy` arrays. Paths are relative to the project root."""

    factory = "gnflow.data.sources.tokens:open_ids"
    needs = "gnflow.data.sources.needs:ids"
    ready = True
    kind: Literal["tokens"] = "tokens"
    train: Path
    """Token ids to train on."""
    held_out: Path | None = None
    """Token ids to evaluate on. Default: the last `held_out_fraction` of `train`."""
    held_out_fraction: Annotated[Part, mark_later(0.05)] = 0.05
    """Fraction of the tokens of `train` to hold out when `held_out` names no file."""
    vocabulary: Annotated[Count, Unit("tokens")]
    """Number of distinct ids; every id must be below it."""

    def entries(self, tokenizer: "Tokenizer") -> int:
        """Return the number of distinct ids."""
        return self.vocabulary

    @field_validator("held_out")
    @classmethod
    def _require_held_out_apart(cls, held_out: str | None, info: ValidationInfo) -> str | None:
        if held_out is not None and PurePath(held_out) == PurePath(info.data.get("train", "")):
            raise refuse(
                "`train` and `held_out` are the same file; name another one, "
                "or remove this key: the last `held_out_fraction` of `train` is held out then"
            )
        return held_out


class BPE(Spec):
    """Byte-level BPE that is trained on the training text."""

    fitted: ClassVar[bool] = True
    kind: Literal["bpe"] = "bpe"
    vocabulary: Annotated[int, Field(ge=257, le=1_000_000), Unit("tokens")] = 512
    """Number of tokens: 256 bytes, one end-of-text mark, and merges."""


class PretrainedTokenizer(Spec):
    """A tokenizer in a `tokenizer.json` of Hugging Face."""

    fitted: ClassVar[bool] = False
    kind: Literal["huggingface"] = "huggingface"
    path: Path
    """The file, or a directory that holds it."""
    vocabulary: Annotated[Count, Unit("tokens")]
    """Entries of the tokenizer; checked when it is opened, so that a plan needs no file."""
    added_tokens: Annotated[Literal["match", "text"], mark_later("match")] = "match"
    """Added tokens that are not special, such as `<think>`, where a document spells them: one id (`match`), or read as
    any other text is (`text`). Special tokens, such as `<|endoftext|>`, are always read as text."""


class Bytes(Spec):
    """One token for each byte, and one end-of-text mark: 257 tokens, and nothing to train."""

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
    """Where the text comes from."""
    tokenizer: Tokenizer | None = None
    """How text becomes tokens. Default: `bpe`. A source of ready `tokens` takes no tokenizer."""
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
