"""Micro-batches of either kind of data, for training and for evaluation."""

from torch import Tensor

from gnflow.data import batches
from gnflow.data.batches import Batches, row_count
from gnflow.data.dataset import Dataset
from gnflow.data.multimodal import mixture
from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.mixture import MixedBatches

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
