"""Turn a multimodal `data:` section into a MultimodalDataset, whose shards are made once and reused afterwards."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from gnflow.data import shards, tokenizers
from gnflow.data.cache import Report, list_versions, make_once
from gnflow.data.dataset import TOKENIZER
from gnflow.data.digests import Digests
from gnflow.data.multimodal.codec import fit_codec, measure_reconstruction, open_codec
from gnflow.data.multimodal.dataset import FORMAT, MultimodalDataset, open_dataset
from gnflow.data.multimodal.pretrained import list_model_files
from gnflow.data.multimodal.samples import Gallery, Pictures
from gnflow.data.multimodal.sequences import make_sequences
from gnflow.data.multimodal.write import Forms, Texts, require_context, write
from gnflow.data.sources.chosen import open_texts
from gnflow.data.sources.corpus import Json, join_pieces
from gnflow.data.sources.opened import Opened
from gnflow.errors import DataError
from gnflow.spec.factory import call_factory
from gnflow.spec.multimodal import Multimodal, PretrainedVQ
from gnflow.workspace import Workspace


def prepare(data: Multimodal, workspace: Workspace, report: Report) -> MultimodalDataset:
    """Open the shards of `data`, and make them first if there are none.

    Raises DataError, EnvironmentProblem when a package is missing, DiskProblem when nothing can be written.
    """
    digests = Digests(workspace.cache / "digests.json")
    pictures = call_factory(data.source, Pictures, data.source, workspace.root, data.variant)
    text = None if data.text is None else open_texts(data.text, workspace.root)
    label = f"{data.source.kind}-{data.style}-{data.image_tokenizer.kind}-{data.vocabulary}"
    found = make_once(
        workspace.data / label,
        lambda: _identify(data, pictures, text, workspace.root, digests),
        lambda partial: _write(partial, data, pictures, text, workspace.root, report),
        report,
    )
    dataset = open_dataset(found.directory, found.key, data, workspace.root, digests)
    digests.save()
    return dataset


def _identify(
    data: Multimodal, pictures: Pictures, text: Opened | None, root: Path, digests: Digests
) -> dict[str, Json]:
    """Return what distinguishes these shards from others. The mix does not, since it only shapes batches."""
    model: Json = None
    if isinstance(data.image_tokenizer, PretrainedVQ):
        model = {path.name: digests.sha256(path) for path in list_model_files(root / data.image_tokenizer.path)}
    return {
        "data": data.model_dump(mode="json", exclude={"mix"}),
        "source": pictures.identity(digests.sha256),
        "text": None if text is None else text.identity(digests.sha256),
        "tokenizer": tokenizers.identify(data.tokenizer, root, digests.sha256),
        "image_tokenizer": model,
        "format": FORMAT,
    }


def _open_texts(text: Opened | None, gallery: Gallery) -> tuple[Texts, Texts]:
    """Open the texts of both splits that rows of text are made of. Raises DataError if there is none."""
    if text is None:
        return gallery.train.captions, gallery.held_out.captions
    corpus = text.corpus()
    for name, pieces in zip(corpus._fields, corpus, strict=True):
        if next(pieces(), None) is None:
            part = name.replace("_", "-")
            raise DataError(
                f"there is nothing in the {part} part of data.text\nexpected at least one document with text"
            )
    train, held_out = corpus
    return lambda: (p.text for p in join_pieces(train())), lambda: (p.text for p in join_pieces(held_out()))


def _read_words(gallery: Gallery, texts: tuple[Texts, Texts]) -> Iterator[str]:
    """Read all training text."""
    captions = gallery.train.captions
    return captions() if texts[0] is captions else chain(captions(), texts[0]())


def _write(
    directory: Path, data: Multimodal, pictures: Pictures, text: Opened | None, root: Path, report: Report
) -> dict[str, Json]:
    gallery = pictures.gallery()
    texts = _open_texts(text, gallery)
    tokenizer = tokenizers.make_tokenizer(data.tokenizer, lambda: _read_words(gallery, texts), root, report)
    if tokenizer.file:
        shards.write_text(directory / TOKENIZER, tokenizer.file)
    report(f"turning images into codes of {data.codebook}")
    fit_codec(data, gallery.train, directory)
    forms = Forms(data, make_sequences(data, tokenizer.encode), tokenizer, open_codec(data, root, directory))
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
        "reconstruction": dict(measure_reconstruction(forms.codec, gallery.held_out)._asdict()),
        "versions": list_versions("gnflow", "numpy", "tokenizers", "polars", "pillow", "transformers"),
    }
