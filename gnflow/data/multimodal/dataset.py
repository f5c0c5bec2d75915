"""Prepared rows of images and text, checked when they are opened."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gnflow.data.dataset import compute_digest, explain_damage, guard_opening, map_array, read_manifest
from gnflow.data.digests import Digests
from gnflow.data.microbatches import select_ids
from gnflow.data.multimodal import mixture
from gnflow.data.multimodal.checks import find_problem
from gnflow.data.multimodal.codec import Reconstruction, open_codec
from gnflow.data.multimodal.mixture import MixedBatches
from gnflow.data.multimodal.samples import Captioned, Codec, Pixels
from gnflow.data.multimodal.sequences import Sequences, make_sequences
from gnflow.data.multimodal.split import Split
from gnflow.data.multimodal.vq import assemble
from gnflow.data.multimodal.write import TASKS
from gnflow.data.tokenizers import Tokenizer, open_tokenizer
from gnflow.spec.multimodal import Multimodal

FORMAT = 1
CHUNK = 4096


@dataclass(frozen=True)
class MultimodalDataset:
    """Both splits, with the codec and the tokenizer that turn their ids back into images and text."""

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

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text."""
        return open_tokenizer(self.data.tokenizer, self.directory)

    @cached_property
    def codec(self) -> Codec:
        """The codec of the images."""
        return open_codec(self.data, self.root, self.directory)

    @cached_property
    def sequences(self) -> Sequences:
        """The form of the sequences in a row."""
        return make_sequences(self.data, self.tokenizer.encode)

    @property
    def pictures(self) -> "MultimodalDataset":
        """The dataset itself, since it has images."""
        return self

    def make_microbatches(self, rows: int, seed: int, stream: str = "train") -> MixedBatches:
        """Make the endless sequence of micro-batches of training rows, each of `rows` rows in the ratio of the mix."""
        return MixedBatches(self.train, rows, self.data.mix, seed, stream)

    def take_held_out(self, rows: int, most: int) -> torch.Tensor:
        """Return at most `most` held-out micro-batches, in which no row comes twice; one if there are fewer rows."""
        mix = self.data.mix
        return mixture.take_held_out(
            self.held_out, rows, mix, min(most, mixture.count_microbatches(self.held_out, rows, mix))
        )

    def decode_row(self, row: torch.Tensor) -> str:
        """Return the text of each sample in a row, a line each."""
        return "\n".join(self.decode_texts(select_ids(row).numpy()))

    def describe(self) -> list[str]:
        """Describe samples and rows of both splits, and the error of images that are decoded from their codes."""
        lines = []
        for split, name in (("train", "train"), ("held_out", "held out")):
            counts = self.counts[split]
            rows = {task: counts[task] for task in TASKS}
            filled = counts["tokens"] / (sum(rows.values()) * (self.data.context + 1))
            lines.append(
                f"{name:<9} {counts['samples']:>13,} samples {sum(rows.values()):>11,} rows of {self.data.context} "
                f"({', '.join(f'{task} {number:,}' for task, number in rows.items())}), {filled:.0%} filled"
            )
        error, used, images = self.reconstruction
        return [
            *lines,
            f"{images:,} held-out images come back with an error of {error:.1f} of 255 (root mean square), "
            f"in {used:,} of {self.data.codebook:,} codes",
        ]

    def decode_images(self, ids: NDArray[np.integer]) -> Pixels:
        """Decode the quantised images in a stream of ids, in order: [images, height, width, colours]."""
        return self.codec.decode(self.sequences.find_codes(ids))

    def restore_images(self, tokens: torch.Tensor) -> Pixels:
        """Return the images that a stream of tokens [..., channels] reads as pixels (`janus`), in order."""
        flat = tokens.reshape(-1, tokens.shape[-1]).numpy()
        cut = flat[flat[:, 0] == self.sequences.marks["PLACEHOLDER"], 2:].astype(np.uint8)
        count = self.data.understanding_tokens
        return assemble(cut.reshape(-1, count, cut.shape[-1]), self.data.source.shape, self.data.patch_side)

    def list_examples(self, count: int) -> list[Captioned]:
        """List the first held-out images, at most `count` and none twice, each as it is read and with a caption."""
        found: dict[bytes, Captioned] = {}
        rows = self.held_out.find_rows("understanding")
        for row in range(rows.start, rows.stop):
            if len(found) >= count:
                break
            tokens = self.held_out.gather(np.array([row]))
            ids = tokens[..., 0].numpy()
            images = self.restore_images(tokens) if self.data.style == "janus" else self.decode_images(ids)
            for image, caption in zip(images, self.decode_texts(ids), strict=True):
                found.setdefault(image.tobytes(), Captioned(image, caption))
        return list(found.values())[:count]

    def decode_texts(self, ids: NDArray[np.integer]) -> list[str]:
        """Decode the text of each sample in a stream of ids."""
        return [self.tokenizer.decode(words) for words in self.sequences.find_words(ids)]


def open_dataset(directory: Path, key: str, data: Multimodal, root: Path, digests: Digests) -> MultimodalDataset:
    """Open the shards in `directory`. Raises DataError if they are damaged or of another corpus."""
    with guard_opening(directory):
        manifest = read_manifest(directory, key, FORMAT, digests)
        measured = manifest["reconstruction"]
        dataset = MultimodalDataset(
            directory,
            manifest["vocabulary"],
            compute_digest(manifest),
            _open_split(directory, "train", data),
            _open_split(directory, "held_out", data),
            data,
            root,
            Reconstruction(measured["error"], int(measured["codes_used"]), int(measured["images"])),
            manifest["splits"],
        )
        _check(dataset, "train", dataset.train)
        _check(dataset, "held_out", dataset.held_out)
    return dataset


def _open_split(directory: Path, name: str, data: Multimodal) -> Split:
    janus = data.style == "janus"
    split = Split(
        ids=map_array(directory / f"{name}.ids.npy", 2),
        groups=map_array(directory / f"{name}.groups.npy", 2),
        tasks=map_array(directory / f"{name}.tasks.npy", 1),
        patches=map_array(directory / f"{name}.patches.npy", 2) if janus else None,
        pixels=map_array(directory / f"{name}.pixels.npy", 2) if janus else None,
    )
    rows = (len(split.tasks), data.context + 1)
    for part, found in (("ids", split.ids), ("groups", split.groups), ("patches", split.patches)):
        if found is not None and found.shape != rows:
            raise explain_damage(directory / f"{name}.{part}.npy", f"its shape is {found.shape}; expected {rows}")
    return split


def _check(dataset: MultimodalDataset, name: str, split: Split) -> None:
    """Raise DataError with the file and row of the first fault, if there is one."""
    order = np.diff(split.tasks.astype(np.int64))
    if (order < 0).any() or split.tasks[-1] >= len(TASKS):
        row = int(np.flatnonzero(np.append(order < 0, split.tasks[-1] >= len(TASKS)))[0])
        raise explain_damage(
            dataset.directory / f"{name}.tasks.npy", f"row {row}: task {split.tasks[row]} is out of order"
        )
    known = 0 if split.pixels is None else len(split.pixels)
    for task in TASKS:
        rows = split.find_rows(task)
        for start in range(rows.start, rows.stop, CHUNK):
            chunk = slice(start, min(start + CHUNK, rows.stop))
            patches = None if split.patches is None else split.patches[chunk]
            found = find_problem(split.ids[chunk], split.groups[chunk], patches, task, dataset.sequences, known)
            if found:
                path = dataset.directory / f"{name}.{found.part}.npy"
                raise explain_damage(path, f"row {start + found.row}: {found.reason}")
