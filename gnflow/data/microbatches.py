"""The interface of data of every kind: micro-batches by number, held-out ones, and the text of a row."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gnflow.errors import DataError, EnvironmentProblem

if TYPE_CHECKING:
    from gnflow.data.multimodal.dataset import MultimodalDataset


class Microbatches(Protocol):
    """An endless stream of shuffled micro-batches. Each is a function of seed, stream and number alone."""

    def find_rows(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the row of the data behind each row of micro-batches first ... first + count - 1: [count, rows]."""
        ...

    def take(self, first: int, count: int) -> Tensor:
        """Return micro-batches first ... first + count - 1 as int64 [count, rows, context + 1, *token_shape]."""
        ...


class Prepared(Protocol):
    """Prepared data on disk, whose files have been verified."""

    @property
    def directory(self) -> Path:
        """The directory that holds the shards."""
        ...

    @property
    def digest(self) -> str:
        """The SHA-256 digest over all files of the prepared directory."""
        ...

    def make_microbatches(self, rows: int, seed: int, stream: str = "train") -> Microbatches:
        """Make the endless sequence of micro-batches of training data, each of `rows` rows."""
        ...

    def take_held_out(self, rows: int, most: int) -> Tensor:
        """Return at most `most` held-out micro-batches, in which no row comes twice.

        One is filled even from fewer rows, for its shape must be that of the others.
        """
        ...

    def decode_row(self, row: Tensor) -> str:
        """Return the text of a row, or its ids if no text is known for them.

        Raises DataError or EnvironmentProblem where that takes a file or a package that is not there.
        """
        ...

    def describe(self) -> list[str]:
        """Describe the content of the shards in lines of text for the user."""
        ...

    @property
    def pictures(self) -> "MultimodalDataset | None":
        """The dataset that turns ids into images and back; None if the data has no images."""
        ...


def format_ids(row: Tensor) -> str:
    """Format the ids of a row of tokens as numbers."""
    return " ".join(map(str, select_ids(row).tolist()))


def select_ids(row: Tensor) -> Tensor:
    """Return the ids of a row, without the further channels of its tokens."""
    return row if row.ndim == 1 else row[:, 0]


def make_reader(dataset: Prepared) -> Callable[[Tensor], str]:
    """Return a function from a row of tokens to its text, or to its ids if the text cannot be had here."""

    def read(row: Tensor) -> str:
        try:
            return dataset.decode_row(row)
        except (DataError, EnvironmentProblem):
            return format_ids(row)  # what went wrong is told all the same

    return read
