"""Turn images into codes and back, by a codebook fitted here or by a VQ model of transformers."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, assert_never

import numpy as np

from gnflow.data.multimodal import vq
from gnflow.data.multimodal.pretrained import open_pretrained
from gnflow.data.multimodal.samples import Codec, Images, Pixels
from gnflow.spec.multimodal import VQ, Multimodal, PretrainedVQ

CODEBOOK = "codebook.npy"
BATCH = 256
# Held-out images whose reconstruction is measured, at most; a model's decoder is slow.
MEASURED = 4096


class Reconstruction(NamedTuple):
    """The quality of held-out images that were encoded and decoded again."""

    error: float
    """Root mean square over all pixel values, in steps of 1/255."""
    codes_used: int
    """Codes that occur in these images."""
    images: int
    """Number of images looked at."""


def fit_codec(data: Multimodal, images: Images, directory: Path) -> None:
    """Write the codebook that the codec learns from the training images, if it learns one. Raises DataError."""
    if isinstance(data.image_tokenizer, VQ):
        spec = data.image_tokenizer
        cut = vq.cut_patches(np.stack(list(take_spaced(images, spec.images))), spec.patch)
        codebook = vq.fit(cut.reshape(-1, cut.shape[-1]), spec.codebook, spec.iterations, data.variant)
        np.save(directory / CODEBOOK, codebook)


def open_codec(data: Multimodal, root: Path, directory: Path) -> Codec:
    """Open the codec whose codebook is in `directory`. Raises DataError, or EnvironmentProblem without transformers."""
    match data.image_tokenizer:
        case VQ(patch=patch):
            codebook = np.load(directory / CODEBOOK)
            return Codec(
                lambda images: vq.encode(images, codebook, patch),
                lambda codes: vq.decode(codes, codebook, data.source.shape, patch),
            )
        case PretrainedVQ() as spec:
            return open_pretrained(root / spec.path, spec, data.grid, data.source.shape[2])
        case _:
            assert_never(data.image_tokenizer)


def measure_reconstruction(codec: Codec, images: Images) -> Reconstruction:
    """Measure the reconstruction of evenly spaced images."""
    chosen = take_spaced(images, MEASURED)
    squares, used, count, values = 0.0, set[int](), 0, 0
    while batch := list(islice(chosen, BATCH)):
        original = np.stack(batch)
        codes = codec.encode(original)
        squares += float(((codec.decode(codes).astype(float) - original) ** 2).sum())
        used |= set(np.unique(codes).tolist())
        count, values = count + len(batch), values + original.size
    return Reconstruction((squares / values) ** 0.5, len(used), count)


def take_spaced(images: Images, most: int) -> Iterator[Pixels]:
    """Return at most `most` images, evenly spaced."""
    return (sample.image for sample in islice(images.read(), 0, None, -(-images.samples // most)))
