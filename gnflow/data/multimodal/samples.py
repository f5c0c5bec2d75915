"""The types that a source of images gives: both splits, an image and a caption at a time, any number of times."""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnflow.data.sources.opened import Identity

Pixels = NDArray[np.uint8]
Codes = NDArray[np.int64]


class Captioned(NamedTuple):
    """An image, [height, width, colours], and its caption."""

    image: Pixels
    caption: str


class Images(NamedTuple):
    """The images of one split. Each function starts from the beginning whenever it is called."""

    samples: int
    read: Callable[[], Iterator[Captioned]]
    captions: Callable[[], Iterator[str]]
    """The captions alone, in the same order."""


class Gallery(NamedTuple):
    """Images to train on and to hold out."""

    train: Images
    held_out: Images


class Pictures(NamedTuple):
    """The result of the factory of a source of images."""

    identity: Identity
    gallery: Callable[[], Gallery]


class Codec(NamedTuple):
    """A pair of functions: images [images, height, width, colours] to codes [images, codes], and back."""

    encode: Callable[[Pixels], Codes]
    decode: Callable[[Codes], Pixels]


def draw(below: int, *key: object) -> int:
    """Draw a whole number from 0 to `below` - 1 that is a function of the key alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:16], "big") % below
