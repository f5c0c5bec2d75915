"""From a multimodal `data:` section to a MultimodalDataset: shards made once and reused afterwards."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from gnflow.data import shards, tokenizers
from gnflow.data.cache import Report, made, versions
from gnflow.data.dataset import TOKENIZER
from gnflow.data.digests import Digests
from gnflow.data.multimodal.codec import codec, fitted, reconstruction
from gnflow.data.multimodal.dataset import FORMAT, MultimodalDataset, opened
from gnflow.data.multimodal.pretrained import model_files
from gnflow.data.multimodal.samples import Gallery, Pictures
from gnflow.data.multimodal.sequences import sequences
from gnflow.data.multimodal.write import Forms, Texts, require_context, write
from gnflow.data.sources.chosen import open_texts
from gnflow.data.sources.corpus import Json, joined
from gnflow.data.sources.opened import Opened
from gnflow.errors import DataError
from gnflow.spec.factory import call_factory
from gnflow.spec.multimodal import Multimodal, PretrainedVQ
from gnflow.workspace import Workspace


def prepare(data: Multimodal, workspace: Workspace, report: Report) -> MultimodalDataset:
    """Open the shards of `data`, made first when there are none.

    Raises DataError, EnvironmentProblem when a package is missing, DiskProblem when nothing can be written.
    """
    digests = Digests(workspace.cache / "digests.json")
    pictures = call_factory(data.source, Pictures, data.source, workspace.root, data.variant)
    text = None if data.text is None else open_texts(data.text, workspace.root)
    label = f"{data.source.kind}-{data.style}-{data.image_tokenizer.kind}-{data.vocabulary}"
    found = made(
        workspace.data / label,
        lambda: _identity(data, pictures, text, workspace.root, digests),
        lambda partial: _write(partial, data, pictures, text, workspace.root, report),
        report,
    )
    dataset = opened(found.directory, found.key, data, workspace.root, digests)
    digests.save()
    return dataset


def _identity(
    data: Multimodal, pictures: Pictures, text: Opened | None, root: Path, digests: Digests
) -> dict[str, Json]:
    """What distinguishes these shards from any others. The mix does not: it only shapes batches."""
    model: Json = None
    if isinstance(data.image_tokenizer, PretrainedVQ):
        model = {path.name: digests.sha256(path) for path in model_files(root / data.image_tokenizer.path)}
    return {
        "data": data.model_dump(mode="json", exclude={"mix"}),
        "source": pictures.identity(digests.sha256),
        "text": None if text is None else text.identity(digests.sha256),
        "tokenizer": tokenizers.identity(data.tokenizer, root, digests.sha256),
        "image_tokenizer": model,
        "format": FORMAT,
    }


def _texts(text: Opened | None, gallery: Gallery) -> tuple[Texts, Texts]:
    """What rows of text are made of, for both splits. Raises DataError when there is nothing."""
    if text is None:
        return gallery.train.captions, gallery.held_out.captions
    corpus = text.corpus()
    for name, pieces in zip(corpus._fields, corpus, strict=True):
        if next(pieces(), None) is None:
            part = name.replace("_", "-")
            raise DataError(f"nothing in the {part} part of data.text\nexpected at least one document with text")
    train, held_out = corpus
    return lambda: (p.text for p in joined(train())), lambda: (p.text for p in joined(held_out()))


def _words(gallery: Gallery, texts: tuple[Texts, Texts]) -> Iterator[str]:
    """All training text."""
    captions = gallery.train.captions
    return captions() if texts[0] is captions else chain(captions(), texts[0]())


def _write(
    directory: Path, data: Multimodal, pictures: Pictures, text: Opened | None, root: Path, report: Report
) -> dict[str, Json]:
    gallery = pictures.gallery()
    texts = _texts(text, gallery)
    tokenizer = tokenizers.made(data.tokenizer, lambda: _words(gallery, texts), root, report)
    if tokenizer.file:
        shards.write_text(directory / TOKENIZER, tokenizer.file)
    report(f"turning images into codes of {data.codebook}")
    fitted(data, gallery.train, directory)
    forms = Forms(data, sequences(data, tokenizer.encode), tokenizer, codec(data, root, directory))
    require_context(gallery, forms)
    splits: dict[str, dict[str, int]] = {}
    for name, images, alone in zip(gallery._fields, gallery, texts, strict=True):
        report(f"writing {name}")
        counts = write(directory, name, images, alone, forms)
        rows = {str(task): number for task, number in counts.rows.items()}
        splits[name] = {"samples": counts.samples, "tokens": counts.tokens, **rows}
    return {
        "vocabulary": data.vocabulary,
        "splits": {name: dict[str, Json](counts) for name, counts in splits.items()},
        "reconstruction": dict(reconstruction(forms.codec, gallery.held_out)._asdict()),
        "versions": versions("gnflow", "numpy", "tokenizers", "polars", "pillow", "transformers"),
    }
