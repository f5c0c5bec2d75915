"""`data:` of text: corpora, tokenizers and the length of a row."""

import codecs
from pathlib import PurePath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gnflow.spec.base import Count, Fraction, Kind, Listed, Name, Path, Shorthand, Spec, Unit, later, refuse
from gnflow.spec.open import Open
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


class SourceKind(Kind):
    """A source of text. `factory` takes the source and the root of the project, and returns what opens it.

    gnflow/data/sources/opened.py says what that is: `Opened` for text, `Ready` for token ids.
    """

    needs: ClassVar[str] = ""
    """`module:function`, if there is one. `gnflow check` calls it with the source and the root of the project, and it
    raises DataError or EnvironmentProblem for what a run will lack. It should be quick, and read no file."""
    ready: ClassVar[bool] = False
    """Whether the source gives token ids instead of text. Such a source takes no tokenizer."""

    @property
    def label(self) -> str:
        """The names of directories that are prepared from it begin with this."""
        return self.kind

    def entries(self, tokenizer: "Tokenizer") -> int:
        """Number of distinct ids. Where the ids are `ready`, a source has to say this itself."""
        return tokenizer.vocabulary


class Shakespeare(SourceKind):
    """The complete plays (5.0 MB, public domain); three of them are held out."""

    factory = "gnflow.data.sources.shakespeare:open_plays"
    needs = "gnflow.data.sources.needs:plays"
    kind: Literal["shakespeare"] = "shakespeare"
    held_out_fraction: Annotated[Part | None, later(None)] = None
    """Part of the plays held out, the last ones, in place of the three."""


class Files(SourceKind):
    """Text, JSONL or Parquet files, named relative to the project root; `*` and `**` are allowed."""

    factory = "gnflow.data.sources.files:open_files"
    needs = "gnflow.data.sources.needs:files"
    kind: Literal["files"] = "files"
    paths: Annotated[Listed[Path], Field(min_length=1)]
    """Training files: .txt, .md (one document each), .jsonl or .parquet (one document a row)."""
    held_out: Listed[Path] = ()
    """Held-out files. Default: the last `held_out_fraction` of the documents of `paths`."""
    held_out_fraction: Part = 0.05
    """Part of the documents (of the text, when there is one document) held out when `held_out` names no file."""
    column: Name = "text"
    """The field of a JSONL or Parquet row that holds the text; `meta.text` is the field `text` of the mapping
    `meta`."""
    encoding: Annotated[Encoding, later("utf-8")] = "utf-8"
    """How text and JSONL files are encoded."""


class Package(SourceKind):
    """Text files of an installed distribution, at one version: source code that every machine has the same of."""

    factory = "gnflow.data.sources.package:open_package"
    needs = "gnflow.data.sources.needs:package"
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

    @property
    def label(self) -> str:
        """The distribution's name."""
        return self.distribution


class HuggingFace(SourceKind):
    """A dataset that `datasets.load_dataset` can open."""

    factory = "gnflow.data.sources.huggingface:open_dataset"
    needs = "gnflow.data.sources.needs:dataset"
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
    """The column that holds the text; `meta.text` is the field `text` of the mapping `meta`."""
    documents: Annotated[Count | None, Unit("documents")] = None
    """Take only the first so many documents."""

    @property
    def label(self) -> str:
        """The name of the dataset, without its owner's."""
        return PurePath(self.path).name

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


class Tokens(SourceKind):
    """Ready token ids: one-dimensional integer `.npy` arrays, named relative to the project root."""

    factory = "gnflow.data.sources.tokens:open_ids"
    needs = "gnflow.data.sources.needs:ids"
    ready = True
    kind: Literal["tokens"] = "tokens"
    train: Path
    """Token ids to train on."""
    held_out: Path | None = None
    """Token ids to evaluate on. Default: the last `held_out_fraction` of `train`."""
    held_out_fraction: Annotated[Part, later(0.05)] = 0.05
    """Part of the tokens of `train` held out when `held_out` names no file."""
    vocabulary: Annotated[Count, Unit("tokens")]
    """Number of distinct ids; every id must be below it."""

    def entries(self, tokenizer: "Tokenizer") -> int:
        """Number of distinct ids."""
        return self.vocabulary

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

    fitted: ClassVar[bool] = True
    kind: Literal["bpe"] = "bpe"
    vocabulary: Annotated[int, Field(ge=257, le=1_000_000), Unit("tokens")] = 512
    """Entries: 256 bytes, one end-of-text mark, and merges."""


class PretrainedTokenizer(Spec):
    """A `tokenizer.json` as Hugging Face writes it."""

    fitted: ClassVar[bool] = False
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
    """How text becomes tokens. Default: `bpe`. Ready `tokens` take none."""
    context: Annotated[int, Field(ge=2), Unit("tokens")] = 64
    """Tokens predicted in one row."""

    @field_validator("tokenizer")
    @classmethod
    def _tokens_need_no_tokenizer(cls, tokenizer: object, info: ValidationInfo) -> object:
        source = info.data.get("source")
        if tokenizer is not None and source is not None and source.ready:
            raise refuse("ready tokens take no tokenizer; remove this key")
        return tokenizer

    @property
    def cut_by(self) -> BPE | PretrainedTokenizer | Bytes | None:
        """The tokenizer, written out or by default; None where the ids are ready."""
        return None if self.source.ready else self.tokenizer or BPE()

    @property
    def vocabulary(self) -> int:
        """Number of distinct token ids."""
        return self.source.entries(self.tokenizer or BPE())

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of one token in a micro-batch: it is its id, and no more."""
        return ()

    @property
    def meaning(self) -> dict[str, object]:
        """The keys that decide what the ids stand for. Trained weights fit other data where these are the same.

        A tokenizer that is fitted depends on the text that it is fitted to. What ready ids stand for is not known.
        """
        if self.cut_by is None:
            return {}
        source = {"source": self.source.model_dump(mode="json")} if self.cut_by.fitted else {}
        return {**source, "tokenizer": self.cut_by.model_dump(mode="json")}
