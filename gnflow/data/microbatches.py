"""Micro-batches of either kind of data, for training and for evaluation."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from gnflow.data import batches, tokenizers
from gnflow.data.batches import Batches, row_count
from gnflow.data.dataset import Dataset
from gnflow.data.multimodal import mixture
from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.mixture import MixedBatches
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import BPE, Text, Tokens
from gnflow.spec.multimodal import Data

Prepared = Dataset | MultimodalDataset


def training(dataset: Prepared, rows: int, context: int, seed: int, stream: str = "train") -> Batches | MixedBatches:
    """The endless shuffled micro-batches of a stream."""
    if isinstance(dataset, MultimodalDataset):
        return MixedBatches(dataset.train, rows, dataset.data.mix, seed, stream)
    return Batches(dataset.train, rows, context, seed, stream)


def evaluation(dataset: Prepared, rows: int, context: int, most: int) -> Tensor:
    """At most so many held-out micro-batches, in which no row comes twice.

    One is filled even from fewer rows, for its shape must be that of the others.
    """
    if isinstance(dataset, MultimodalDataset):
        mix = dataset.data.mix
        return mixture.held_out(dataset.held_out, rows, mix, min(most, mixture.whole(dataset.held_out, rows, mix)))
    whole = max(row_count(len(dataset.held_out), context) // rows, 1)
    return batches.held_out(dataset.held_out, rows, context, min(most, whole))


def ids_of(row: Tensor) -> str:
    """A row of tokens as the numbers that they are."""
    return " ".join(map(str, (row if row.ndim == 1 else row[:, 0]).tolist()))


def reader(dataset: Prepared, data: Data) -> Callable[[Tensor], str]:
    """What turns a row of tokens into its text; into ids where these stand for nothing that can be read here."""

    def read(row: Tensor) -> str:
        ids = (row if row.ndim == 1 else row[:, 0]).numpy()
        try:
            if isinstance(dataset, MultimodalDataset):
                return "\n".join(dataset.texts_of(ids))
            if isinstance(data, Text) and not isinstance(data.source, Tokens):
                tokenizer = tokenizers.kept(data.tokenizer or BPE(), dataset.directory)
                return tokenizer.decode(ids.astype(np.uint32))
        except (DataError, EnvironmentProblem):
            pass  # no package for it: what went wrong is told all the same
        return ids_of(row)

    return read
