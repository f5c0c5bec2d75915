"""Write images and captions as shards: rows of ids, the group of each, the task of each row, and patches of pixels.

<split>.ids.npy      [rows, context + 1]   sequences, packed whole
<split>.groups.npy   [rows, context + 1]   which loss a token bears as a target (gnflow.groups), 0 for none
<split>.tasks.npy    [rows]                place of the row's task in TASKS; rows of one task stand together
<split>.patches.npy  [rows, context + 1]   `janus`: 1 + the number of the patch that is read here, else 0
<split>.pixels.npy   [patches, values]     `janus`: the patches, image after image
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from gnflow.data import shards
from gnflow.data.multimodal import vq
from gnflow.data.multimodal.packing import Sequence, make_plain, pack
from gnflow.data.multimodal.samples import Codec, Gallery, Images, draw
from gnflow.data.multimodal.sequences import Sequences
from gnflow.data.tokenizers import Ids, Tokenizer
from gnflow.errors import DataError
from gnflow.groups import Task
from gnflow.spec.multimodal import Multimodal

TASKS: tuple[Task, ...] = get_args(Task)
BATCH = 256
ONE = 1 << 53

Item = TypeVar("Item")
Texts = Callable[[], Iterator[str]]
Columns = dict[str, NDArray[np.integer]]


class Forms(NamedTuple):
    """The spec, tokenizer and codec that turn a sample into a sequence."""

    data: Multimodal
    sequences: Sequences
    tokenizer: Tokenizer
    codec: Codec


class Counts(NamedTuple):
    """The numbers of samples, tokens and rows in a split."""

    samples: int
    tokens: int
    """Ids that are not padding."""
    rows: dict[Task, int]


def write(directory: Path, name: str, images: Images, texts: Texts, forms: Forms) -> Counts:
    """Write the files of one split."""
    if forms.data.style == "janus":
        _write_pixels(directory / f"{name}.pixels.npy", images, forms.data)
    length, pad = forms.data.context + 1, forms.sequences.marks["PAD"]
    tokens, rows = 0, dict.fromkeys(TASKS, 0)
    with _grow(directory, name, forms.data) as append:
        for number, task in enumerate(TASKS):
            if task == "text":
                samples = _make_text_sequences(texts, forms)
            else:
                samples = _make_image_sequences(task, images, forms, name == "train")
            for batch in _batch(pack(samples, length, pad)):
                ids = np.stack([row.ids for row in batch])
                append(
                    {
                        "ids": ids,
                        "groups": forms.sequences.find_groups(ids, task),
                        "tasks": np.full(len(batch), number),
                        "patches": np.stack([row.patches for row in batch]),
                    }
                )
                rows[task] += len(batch)
                tokens += int((ids != pad).sum())
    return Counts(images.samples, tokens, rows)


@contextmanager
def _grow(directory: Path, name: str, data: Multimodal) -> Iterator[Callable[[Columns], None]]:
    """Open the files of a split, to which rows are appended."""
    row = (data.context + 1,)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "ids": (shards.choose_dtype(data.vocabulary), row),
        "groups": ("|u1", row),
        "tasks": ("|u1", ()),
    }
    if data.style == "janus":
        shapes["patches"] = ("<u4", row)
    with ExitStack() as stack:
        appends = {
            part: stack.enter_context(shards.grow(directory / f"{name}.{part}.npy", *shape))
            for part, shape in shapes.items()
        }

        def append(columns: Columns) -> None:
            for part, grow in appends.items():
                grow(columns[part])

        yield append


def _write_pixels(path: Path, images: Images, data: Multimodal) -> None:
    with shards.grow(path, "|u1", (data.patch_values,)) as append:
        for samples in _batch(images.read()):
            cut = vq.cut_patches(np.stack([sample.image for sample in samples]), data.patch_side)
            append(cut.reshape(-1, cut.shape[-1]))


def require_context(gallery: Gallery, forms: Forms) -> None:
    """Raise DataError if the longest sample is longer than a row."""
    longest = max(len(words) for split in gallery for words in _encode(split.captions(), forms.tokenizer))
    image = max(len(forms.sequences.make_template(task)) for task in ("understanding", "generation"))
    if longest + image + 2 > forms.data.context + 1:
        raise DataError(
            f"data.context is {forms.data.context}, but the longest sample, an image of {image} tokens with a caption "
            f"of {longest}, takes {longest + image + 2}\n"
            f"set data.context to {longest + image + 1} or more, or shorten the captions"
        )


def _make_text_sequences(texts: Texts, forms: Forms) -> Iterator[Sequence]:
    room = forms.data.context - 1
    for words in _encode(texts(), forms.tokenizer):
        for start in range(0, len(words), room):
            yield make_plain(forms.sequences.make_text(words[start : start + room]))


def _make_image_sequences(task: Task, images: Images, forms: Forms, training: bool) -> Iterator[Sequence]:
    numbers = count()
    for batch in _batch(images.read()):
        codes = forms.codec.encode(np.stack([sample.image for sample in batch]))
        captions = forms.tokenizer.encode([sample.caption for sample in batch])
        for words, image, number in zip(captions, codes, numbers, strict=False):
            if task == "understanding":
                yield _make_reading(forms.sequences.make_understanding(words, image), number, forms)
            else:
                dropped = training and _is_dropped(forms.data, number)
                yield make_plain(
                    forms.sequences.make_generation(forms.sequences.drop_prompt(words) if dropped else words, image)
                )


def _make_reading(ids: Ids, image: int, forms: Forms) -> Sequence:
    if forms.data.style == "emu3":
        return make_plain(ids)
    size = forms.data.understanding_tokens
    patches = np.zeros_like(ids)
    patches[ids == forms.sequences.marks["PLACEHOLDER"]] = 1 + image * size + np.arange(size)
    return Sequence(ids, patches)


def _is_dropped(data: Multimodal, number: int) -> bool:
    return draw(ONE, "drop", data.variant, number) < data.prompt_drop * ONE


def _encode(captions: Iterable[str], tokenizer: Tokenizer) -> Iterator[Ids]:
    for batch in _batch(captions):
        yield from tokenizer.encode(batch)


def _batch(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
