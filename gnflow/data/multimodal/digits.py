"""Scikit-learn's handwritten digits, read in place and never imported, with captions made from their labels."""

import gzip
import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnflow.data.batches import shuffle
from gnflow.data.multimodal.samples import Captioned, Gallery, Images, Pictures, Pixels, draw
from gnflow.data.sources.corpus import Json, count_kept
from gnflow.data.sources.installed import explain_missing
from gnflow.data.sources.paths import guard_read
from gnflow.errors import DataError
from gnflow.spec.multimodal import Digits

SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
FILE = "sklearn/datasets/data/digits.csv.gz"
DARKEST = 16

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDINGS = (
    "the digit {name}",
    "a handwritten {name}",
    "this is the number {figure}",
    "a picture of the digit {figure}",
    "the number {name}, written by hand",
    "{name}",
    "an image of the number {name}",
    "handwritten digit: {figure}",
    "it shows the number {name}",
    "someone wrote the digit {name} here",
    "a small drawing of the digit {figure}",
    "here is the number {figure}",
)
# Taken in steps that share no factor with their number, no two captions of an image are worded alike.
STEP = 5


class Labelled(NamedTuple):
    """Images, [images, 8, 8, 1], and the digit that each shows."""

    images: Pixels
    labels: NDArray[np.int64]


def open_digits(source: Digits, root: Path, variant: int) -> Pictures:
    """Open the digits of the installed scikit-learn; their spec names this function as its factory."""
    return Pictures(lambda sha256: identify(), lambda: open_gallery(source, variant))


def identify() -> Json:
    """Return the digest of images and labels, which is the same for every release of scikit-learn."""
    return {"digits": SHA256}


def open_gallery(source: Digits, variant: int) -> Gallery:
    """Open both splits. Raises EnvironmentProblem without scikit-learn, and DataError if its file is damaged."""
    train, held_out = read_labelled(source)
    labels = [*train.labels.tolist(), *held_out.labels.tolist()]
    words = [make_captions(label, source.captions, variant, number) for number, label in enumerate(labels)]
    first = len(train.labels)
    return Gallery(
        _make_images(train.images, words[:first], variant), _make_images(held_out.images, words[first:], variant)
    )


def read_labelled(source: Digits) -> tuple[Labelled, Labelled]:
    """Read the images to train on and to hold out. Raises the errors of `open_gallery`."""
    images, labels = _read()
    first = count_kept(len(labels), source.held_out_fraction)
    return Labelled(images[:first], labels[:first]), Labelled(images[first:], labels[first:])


def make_captions(label: int, count: int, variant: int, number: int) -> list[str]:
    """Make `count` captions of different wording for an image."""
    first = draw(len(WORDINGS), "wording", variant, number)
    chosen = [WORDINGS[(first + STEP * place) % len(WORDINGS)] for place in range(count)]
    return [wording.format(name=NAMES[label], figure=label) for wording in chosen]


def find_label(caption: str) -> int | None:
    """Find the digit that a caption names; None if it names none or several."""
    words = re.findall(r"[a-z]+|\d", caption.lower())
    found = {NAMES.index(word) if word in NAMES else int(word) for word in words if word in NAMES or word.isdigit()}
    return found.pop() if len(found) == 1 else None


def _make_images(images: Pixels, words: list[list[str]], variant: int) -> Images:
    """Make a split in which every image comes with each of its captions.

    The pairs are shuffled, since samples that share a row see each other, and the file has runs of 0 to 9.
    """
    pairs = [(image, caption) for image, captions in enumerate(words) for caption in captions]
    places = np.arange(len(pairs), dtype=np.uint64)
    order = shuffle(places, np.zeros_like(places), len(pairs), variant, "digits").tolist()

    def read() -> Iterator[Captioned]:
        return (Captioned(images[image], caption) for image, caption in (pairs[place] for place in order))

    return Images(len(pairs), read, lambda: (pairs[place][1] for place in order))


def _read() -> tuple[Pixels, NDArray[np.int64]]:
    try:
        path = Path(str(distribution("scikit-learn").locate_file(FILE)))
    except PackageNotFoundError:
        raise explain_missing("scikit-learn", "the source of digits", "images") from None
    with guard_read(path):
        try:
            content = gzip.decompress(path.read_bytes())
        except (EOFError, gzip.BadGzipFile) as error:
            raise _explain_damage(path, str(error)) from None
    if (digest := hashlib.sha256(content).hexdigest()) != SHA256:
        raise _explain_damage(path, f"the SHA-256 of its content is {digest[:12]}...; expected {SHA256[:12]}...")
    table = np.array([line.split(",") for line in content.decode().split()], dtype=float).astype(np.int64)
    levels = np.rint(table[:, :-1] * (255 / DARKEST)).astype(np.uint8)
    return levels.reshape(-1, 8, 8, 1), table[:, -1]


def _explain_damage(path: Path, reason: str) -> DataError:
    return DataError(f"{path} does not hold the digits: {reason}\nrun: pip install --force-reinstall scikit-learn")
