"""Turn the `data:` section of a spec into prepared data, whose shards are made once and reused afterwards."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, assert_never, overload

import numpy as np
from numpy.typing import NDArray

from gnflow.data import shards, tokenizers
from gnflow.data.batches import count_rows
from gnflow.data.cache import Report, list_versions, make_once
from gnflow.data.dataset import FORMAT, TOKENIZER, Dataset, open_dataset
from gnflow.data.digests import Digests
from gnflow.data.microbatches import Prepared
from gnflow.data.multimodal import prepare as multimodal
from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.sources.chosen import open_ids, open_texts
from gnflow.data.sources.corpus import Json
from gnflow.data.sources.opened import Identity, Opened
from gnflow.data.tokenizers import Ids, Tokenizer, encode_pieces
from gnflow.errors import DataError
from gnflow.spec.data import Text
from gnflow.spec.data import Tokenizer as TokenizerSpec
from gnflow.spec.multimodal import Data, Multimodal
from gnflow.workspace import Workspace

REPORT_SECONDS = 10.0


class Splits(NamedTuple):
    """The ids of both splits, each with the number of text bytes they stand for, and the tokenizer that made them."""

    train: Iterator[tuple[Ids, int]]
    held_out: Iterator[tuple[Ids, int]]
    tokenizer: Tokenizer | None


class Content(NamedTuple):
    """The corpus that a section of text names, of which nothing has been read yet."""

    identity: Identity
    splits: Callable[[Report], Splits]


@overload
def prepare(data: Text, workspace: Workspace, report: Report = ...) -> Dataset: ...
@overload
def prepare(data: Multimodal, workspace: Workspace, report: Report = ...) -> MultimodalDataset: ...
@overload
def prepare(data: Data, workspace: Workspace, report: Report = ...) -> Prepared: ...
def prepare(data: Data, workspace: Workspace, report: Report = lambda line: None) -> Prepared:
    """Open the shards of `data`, and make them first if there are none.

    Raises DataError, EnvironmentProblem when a package is missing, DiskProblem when nothing can be written.
    """
    match data:
        case Text():
            return _prepare_text(data, workspace, report)
        case Multimodal():
            return multimodal.prepare(data, workspace, report)
        case _:
            assert_never(data)


def _prepare_text(data: Text, workspace: Workspace, report: Report) -> Dataset:
    digests, content = Digests(workspace.cache / "digests.json"), _open_content(data, workspace.root)
    found = make_once(
        workspace.data / _make_label(data),
        lambda: _identify(data, content.identity, workspace.root, digests),
        lambda partial: _write(partial, data, content.splits(report), report),
        report,
    )
    dataset = open_dataset(found.directory, found.key, data, digests)
    digests.save()
    _check_rows(dataset, data)
    return dataset


def _open_content(data: Text, root: Path) -> Content:
    tokenizer = data.cut_by
    if tokenizer is None:
        ready = open_ids(data.source, root, data.vocabulary)
        return Content(
            ready.identity, lambda _: Splits(_pair_with_zero(ready.train()), _pair_with_zero(ready.held_out()), None)
        )
    texts = open_texts(data.source, root)
    return Content(texts.identity, lambda report: _encode(data, texts, tokenizer, root, report))


def _identify(data: Text, identity: Identity, root: Path, digests: Digests) -> dict[str, Json]:
    """Return what distinguishes these shards from others. The length and order of rows do not: they shape batches."""
    content = data.model_copy(update={"tokenizer": data.cut_by, "source": data.source.ignore_order()})
    section = content.model_dump(mode="json", exclude={"context"})
    source, tokenizer = identity(digests.sha256), tokenizers.identify(data.cut_by, root, digests.sha256)
    return {"data": section, "source": source, "tokenizer": tokenizer, "format": FORMAT}


def _make_label(data: Text) -> str:
    kinds = [data.source.label] + ([data.cut_by.kind] if data.cut_by else [])
    return "-".join([*kinds, str(data.vocabulary)])


def _write(directory: Path, data: Text, splits: Splits, report: Report) -> dict[str, Json]:
    if splits.tokenizer and splits.tokenizer.file:
        shards.write_text(directory / TOKENIZER, splits.tokenizer.file)
    counts: dict[str, Json] = {}
    for name, parts in (("train", splits.train), ("held_out", splits.held_out)):
        number, size = shards.write_ids(
            directory / f"{name}.npy", data.vocabulary, _report_progress(parts, name, report)
        )
        if not number:
            raise _explain_empty(name, data)
        counts[name] = {"tokens": number, "bytes": size}
    return {
        "vocabulary": data.vocabulary,
        "end_of_text": splits.tokenizer.end_of_text if splits.tokenizer else None,
        "splits": counts,
        "versions": list_versions("gnflow", "numpy", "tokenizers", "datasets", "polars"),
    }


def _encode(data: Text, texts: Opened, wanted: TokenizerSpec, root: Path, report: Report) -> Splits:
    corpus = texts.corpus()
    for name, pieces in zip(corpus._fields, corpus, strict=True):
        if next(pieces(), None) is None:
            raise _explain_empty(name, data)
    tokenizer = tokenizers.make_tokenizer(wanted, lambda: (piece.text for piece in corpus.train()), root, report)
    return Splits(encode_pieces(corpus.train(), tokenizer), encode_pieces(corpus.held_out(), tokenizer), tokenizer)


def _pair_with_zero(chunks: Iterable[NDArray[np.integer]]) -> Iterator[tuple[Ids, int]]:
    return ((ids.astype(np.uint32, copy=False), 0) for ids in chunks)


def _report_progress(parts: Iterator[tuple[Ids, int]], name: str, report: Report) -> Iterator[tuple[Ids, int]]:
    report(f"writing {name}.npy")
    tokens, last = 0, time.monotonic()
    for ids, size in parts:
        yield ids, size
        tokens += len(ids)
        if time.monotonic() - last > REPORT_SECONDS:
            report(f"writing {name}.npy: {tokens:,} tokens so far")
            last = time.monotonic()


def _explain_empty(name: str, data: Text) -> DataError:
    return DataError(
        f"there is nothing in the {'training' if name == 'train' else 'held-out'} part of data.source\n"
        f"expected at least one document with text: {data.source.model_dump_json()}"
    )


def _check_rows(dataset: Dataset, data: Text) -> None:
    for name, ids in (("training", dataset.train), ("held-out", dataset.held_out)):
        if not count_rows(len(ids), data.context):
            raise DataError(
                f"the {name} text has {len(ids)} tokens, and one row takes data.context + 1 = {data.context + 1} "
                f"(training: {len(dataset.train)}, held-out: {len(dataset.held_out)})\n"
                f"lower data.context, or give more {name} text"
            )
