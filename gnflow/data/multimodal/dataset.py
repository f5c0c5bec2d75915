"""Prepared rows of images and text, checked when they are opened."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gnflow.data.dataset import array, damaged, opening, over, verified
from gnflow.data.digests import Digests
from gnflow.data.multimodal.checks import problem
from gnflow.data.multimodal.codec import Reconstruction, codec
from gnflow.data.multimodal.samples import Captioned, Codec, Pixels
from gnflow.data.multimodal.sequences import Sequences, sequences
from gnflow.data.multimodal.vq import assembled
from gnflow.data.multimodal.write import TASKS
from gnflow.data.tokenizers import Tokenizer, kept
from gnflow.groups import Task
from gnflow.spec.multimodal import Multimodal

FORMAT = 1
CHUNK = 4096


@dataclass(frozen=True)
class Split:
    """Rows of one split, memory-mapped; those of one task stand together."""

    ids: NDArray[np.integer]
    groups: NDArray[np.uint8]
    tasks: NDArray[np.uint8]
    patches: NDArray[np.uint32] | None
    pixels: Pixels | None

    def rows(self, task: Task) -> slice:
        """Where the rows of a task are."""
        number = TASKS.index(task)
        first, last = np.searchsorted(self.tasks, [number, number + 1])
        return slice(int(first), int(last))

    def gather(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        """These rows as int64 [*numbers, context + 1, channels]: id, group and pixel values of each token."""
        ids = np.asarray(self.ids)[numbers]
        values = 0 if self.pixels is None else self.pixels.shape[1]
        found = np.zeros((*ids.shape, 2 + values), dtype=np.int64)
        found[..., 0], found[..., 1] = ids, np.asarray(self.groups)[numbers]
        if self.patches is not None and self.pixels is not None:
            patches = np.asarray(self.patches)[numbers]
            read = patches > 0
            found[read, 2:] = self.pixels[patches[read] - 1]
        return torch.from_numpy(found)


@dataclass(frozen=True)
class MultimodalDataset:
    """Both splits, and what turns their ids back into images and text."""

    directory: Path
    vocabulary: int
    digest: str
    """SHA-256 over all files."""
    train: Split
    held_out: Split
    data: Multimodal
    root: Path
    """What a path of `data` is relative to."""
    reconstruction: Reconstruction
    counts: dict[str, dict[str, int]]
    """Samples, tokens and rows of each task, for each split."""
    bytes_per_token: float | None = None
    """A loss over images and text has no bits per byte."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Of text."""
        return kept(self.data.tokenizer, self.directory)

    @cached_property
    def codec(self) -> Codec:
        """Of images."""
        return codec(self.data, self.root, self.directory)

    @cached_property
    def sequences(self) -> Sequences:
        """The form of a row."""
        return sequences(self.data, self.tokenizer.encode)

    def images_of(self, ids: NDArray[np.integer]) -> Pixels:
        """The quantised images in a stream of ids, in order: [images, height, width, colours]."""
        return self.codec.decode(self.sequences.codes(ids))

    def images_read(self, tokens: torch.Tensor) -> Pixels:
        """The images that a stream of tokens [..., channels] reads as pixels (`janus`), in order."""
        flat = tokens.reshape(-1, tokens.shape[-1]).numpy()
        cut = flat[flat[:, 0] == self.sequences.marks["PLACEHOLDER"], 2:].astype(np.uint8)
        count = self.data.understanding_tokens
        return assembled(cut.reshape(-1, count, cut.shape[-1]), self.data.source.shape, self.data.patch_side)

    def examples(self, count: int) -> list[Captioned]:
        """The first held-out images, at most so many and none twice, each as it is read and with a caption."""
        found: dict[bytes, Captioned] = {}
        rows = self.held_out.rows("understanding")
        for row in range(rows.start, rows.stop):
            if len(found) >= count:
                break
            tokens = self.held_out.gather(np.array([row]))
            ids = tokens[..., 0].numpy()
            images = self.images_read(tokens) if self.data.style == "janus" else self.images_of(ids)
            for image, caption in zip(images, self.texts_of(ids), strict=True):
                found.setdefault(image.tobytes(), Captioned(image, caption))
        return list(found.values())[:count]

    def texts_of(self, ids: NDArray[np.integer]) -> list[str]:
        """The text of each sample in a stream of ids."""
        return [self.tokenizer.decode(words) for words in self.sequences.words(ids)]


def opened(directory: Path, key: str, data: Multimodal, root: Path, digests: Digests) -> MultimodalDataset:
    """The shards in `directory`. Raises DataError when they are damaged, or of another corpus."""
    with opening(directory):
        manifest = verified(directory, key, FORMAT, digests)
        measured = manifest["reconstruction"]
        dataset = MultimodalDataset(
            directory,
            manifest["vocabulary"],
            over(manifest),
            _split(directory, "train", data),
            _split(directory, "held_out", data),
            data,
            root,
            Reconstruction(measured["error"], int(measured["codes_used"]), int(measured["images"])),
            manifest["splits"],
        )
        _check(dataset, "train", dataset.train)
        _check(dataset, "held_out", dataset.held_out)
    return dataset


def _split(directory: Path, name: str, data: Multimodal) -> Split:
    janus = data.style == "janus"
    split = Split(
        ids=array(directory / f"{name}.ids.npy", 2),
        groups=array(directory / f"{name}.groups.npy", 2),
        tasks=array(directory / f"{name}.tasks.npy", 1),
        patches=array(directory / f"{name}.patches.npy", 2) if janus else None,
        pixels=array(directory / f"{name}.pixels.npy", 2) if janus else None,
    )
    rows = (len(split.tasks), data.context + 1)
    for part, found in (("ids", split.ids), ("groups", split.groups), ("patches", split.patches)):
        if found is not None and found.shape != rows:
            raise damaged(directory / f"{name}.{part}.npy", f"its shape is {found.shape}; expected {rows}")
    return split


def _check(dataset: MultimodalDataset, name: str, split: Split) -> None:
    """Raises DataError with the file and row of the first fault."""
    order = np.diff(split.tasks.astype(np.int64))
    if (order < 0).any() or split.tasks[-1] >= len(TASKS):
        row = int(np.flatnonzero(np.append(order < 0, split.tasks[-1] >= len(TASKS)))[0])
        raise damaged(dataset.directory / f"{name}.tasks.npy", f"row {row}: task {split.tasks[row]} is out of order")
    known = 0 if split.pixels is None else len(split.pixels)
    for task in TASKS:
        rows = split.rows(task)
        for start in range(rows.start, rows.stop, CHUNK):
            chunk = slice(start, min(start + CHUNK, rows.stop))
            patches = None if split.patches is None else split.patches[chunk]
            found = problem(split.ids[chunk], split.groups[chunk], patches, task, dataset.sequences, known)
            if found:
                path = dataset.directory / f"{name}.{found.part}.npy"
                raise damaged(path, f"row {start + found.row}: {found.reason}")
