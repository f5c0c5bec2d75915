"""Samples of a trained model: images that it draws for captions, and captions that it writes for images."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.samples import Pixels
from gnflow.data.multimodal.sequences import CODE
from gnflow.data.multimodal.vq import cut_patches
from gnflow.models.generation import UNKNOWN, Sampling, continue_rows, paint
from gnflow.models.modality import IDS, PIXELS
from gnflow.models.model import Model
from gnflow.objective import Params

Ids = NDArray[np.int64]
LARGEST = 512
"""Largest number of rows that go through the model together."""
DARK, LIGHT = 64, 144
"""Brightness of the lines in a sheet: below an image and between images."""


def draw_images(
    network: Model, params: Params, dataset: MultimodalDataset, captions: Sequence[str], sampling: Sampling
) -> Pixels:
    """Draw an image for each caption: [captions, height, width, colours]."""
    device = next(iter(params.values())).device
    data, forms = dataset.data, dataset.sequences
    words = dataset.tokenizer.encode(list(captions))
    prompts = _stack_prompts([_write_prompt(dataset, each) for each in words]).to(device)
    dropped = _stack_prompts([_write_prompt(dataset, forms.drop_prompt(each)) for each in words]).to(device)
    codes = range(data.text_vocabulary, data.vocabulary)
    found = paint(network, params, prompts, dropped, codes, data.channels, sampling)
    return dataset.codec.decode(found.cpu().numpy())


def caption_images(network: Model, params: Params, dataset: MultimodalDataset, images: Pixels, most: int) -> list[str]:
    """Write a caption of at most `most` tokens for each image, [images, height, width, colours]."""
    device = next(iter(params.values())).device
    marks = len(dataset.sequences.marks)
    words = dataset.data.text_vocabulary - marks
    return [
        dataset.tokenizer.decode(_cut_at_end(dataset, row))
        for start in range(0, len(images), LARGEST)
        for row in continue_rows(
            network, params, _show_images(dataset, images[start : start + LARGEST]).to(device), words, marks, most
        ).cpu().numpy()
    ]  # fmt: skip


def pair(above: Pixels, below: Pixels) -> Pixels:
    """Set each image over its counterpart with a dark line between: [images, 2 * height + 1, width, colours]."""
    return np.concatenate((above, np.full_like(above[:, :1], DARK), below), axis=1)


def lay_out(images: Pixels, columns: int, scale: int = 8) -> bytes:
    """Lay out images side by side, row by row, as a PNG. Each pixel becomes `scale` pixels wide."""
    count, height, width, colours = images.shape
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + 1, width + 1, colours), LIGHT, np.uint8)
    cells[:count, :height, :width] = images
    whole = cells.reshape(rows, columns, height + 1, width + 1, colours).swapaxes(1, 2)
    table = whole.reshape(rows * (height + 1), columns * (width + 1), colours)
    return encode_png(table.repeat(scale, axis=0).repeat(scale, axis=1))


def encode_png(image: Pixels) -> bytes:
    """Encode [height, width, 1 or 3] as a PNG file (ISO/IEC 15948), without filters."""
    height, width, colours = image.shape
    lines = np.concatenate((np.zeros((height, 1), np.uint8), image.reshape(height, -1)), axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colours == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _write_prompt(dataset: MultimodalDataset, words: NDArray[np.integer]) -> Ids:
    forms = dataset.sequences
    image = forms.make_template("generation")
    return np.concatenate(([forms.marks["BOS"]], words.astype(np.int64), np.where(image == CODE, UNKNOWN, image)))


def _stack_prompts(prompts: Sequence[Ids]) -> Tensor:
    """Pad prompts to one length and stacks them. Ids after a prompt do not matter."""
    longest = max(map(len, prompts))
    return torch.from_numpy(np.stack([np.pad(prompt, (0, longest - len(prompt))) for prompt in prompts]))


def _show_images(dataset: MultimodalDataset, images: Pixels) -> Tensor:
    """Write each image as a row, up to the mark that ends it: (images, time, channels)."""
    data, forms = dataset.data, dataset.sequences
    block = forms.make_template("understanding")
    ids = np.tile(np.concatenate(([forms.marks["BOS"]], block)), (len(images), 1))
    if (ids == CODE).any():
        ids[ids == CODE] = (dataset.codec.encode(images) + data.text_vocabulary).reshape(-1)
    rows = torch.zeros((*ids.shape, data.channels), dtype=torch.int64)
    rows[..., IDS] = torch.from_numpy(ids)
    if data.patch_values:
        rows[:, ids[0] == forms.marks["PLACEHOLDER"], PIXELS:] = torch.from_numpy(
            cut_patches(images, data.patch_side).astype(np.int64)
        )
    return rows


def _cut_at_end(dataset: MultimodalDataset, row: Ids) -> NDArray[np.uint32]:
    """Cut a row before the mark that ends its text."""
    ends = np.flatnonzero(row >= dataset.data.text_vocabulary - len(dataset.sequences.marks))
    return row[: ends[0] if len(ends) else None].astype(np.uint32)
