"""Measure whether a model draws the digits that it is asked for, and names the digits that it is shown.

samples/recognised           part of the drawn images in which `recognise` sees the digit of their caption
samples/captioned            part of the held-out images whose caption by the model names their digit and no other
samples/classifier_accuracy  part of all held-out images, decoded from their codes, that `recognise` gets right; a
                             model that draws like the data would reach it
"""

from collections.abc import Mapping, Sequence
from functools import cache

from gnflow.data.multimodal.dataset import MultimodalDataset
from gnflow.data.multimodal.digits import Labelled, find_label, read_labelled
from gnflow.data.multimodal.samples import Pixels
from gnflow.data.multimodal.vq import find_nearest
from gnflow.spec.multimodal import Digits


def measure_recognition(
    dataset: MultimodalDataset, prompts: Sequence[str], drawn: Pixels, captions: Sequence[str]
) -> Mapping[str, float]:
    """Measure images `drawn` for `prompts`, and `captions` of the held-out images of these prompts.

    Return nothing for data without labels.
    """
    if not isinstance(dataset.data.source, Digits):
        return {}
    train, held_out = _load_labelled(dataset.data.source)
    quantised = dataset.codec.decode(dataset.codec.encode(held_out.images))
    asked = [find_label(prompt) for prompt in prompts]
    named = [find_label(caption) for caption in captions]
    return {
        "samples/recognised": _compute_share_equal(recognise(train, drawn), asked),
        "samples/captioned": _compute_share_equal(named, asked),
        "samples/classifier_accuracy": _compute_share_equal(recognise(train, quantised), held_out.labels.tolist()),
    }


def recognise(train: Labelled, images: Pixels) -> list[int]:
    """Return for each image the label of the nearest training image, in pixels."""
    points, known = (some.reshape(len(some), -1).astype(float) for some in (images, train.images))
    return [int(label) for label in train.labels[find_nearest(points, known)]]


@cache
def _load_labelled(source: Digits) -> tuple[Labelled, Labelled]:
    return read_labelled(source)


def _compute_share_equal(found: Sequence[int | None], wanted: Sequence[int | None]) -> float:
    """Return the part of the entries in which the two are equal."""
    return sum(one == other for one, other in zip(found, wanted, strict=True)) / len(wanted)
