"""Rows of a token stream in an order that is a pure function of (seed, stream, position).

The text is cut into rows of `context + 1` tokens that begin every `context` tokens. Each epoch visits every row once,
in the order of a permutation that is computed, never stored: a Feistel network on the smallest even number of bits
that holds a row number, walked along its cycle until it lands on one (Black and Rogaway 2002, "Ciphers with arbitrary
finite domains").
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gnflow.errors import DataError

ROUNDS = 8
GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Words = NDArray[np.uint64]
Tokens = NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True)
class Batches:
    """Micro-batches by number. Number n takes positions n * rows ... of the endless sequence of shuffled epochs."""

    tokens: Tokens
    rows: int
    context: int
    seed: int
    stream: str = "train"
    shuffled: bool = True
    """Whether each epoch has its own order; otherwise rows come in the order of the text."""

    @property
    def rows_per_epoch(self) -> int:
        """Rows in the text. Raises DataError when there is none."""
        return _require_rows(len(self.tokens), self.context)

    def find_rows(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the row of the text behind each row of micro-batches first ... first + count - 1: [count, rows]."""
        positions = np.arange(first * self.rows, (first + count) * self.rows, dtype=np.uint64)
        size = self.rows_per_epoch
        epochs, places = np.divmod(positions, np.uint64(size))
        numbers = shuffle(places, epochs, size, self.seed, self.stream) if self.shuffled else places
        return numbers.astype(np.int64).reshape(count, self.rows)

    def take(self, first: int, count: int) -> torch.Tensor:
        """Return micro-batches first ... first + count - 1 as int64 [count, rows, context + 1]."""
        return _gather(self.tokens, self.find_rows(first, count), self.context)


def take_held_out(tokens: Tokens, rows: int, context: int, count: int) -> torch.Tensor:
    """Return the first count * rows rows in order, int64 [count, rows, context + 1]; a shorter text begins again."""
    numbers = np.arange(count * rows, dtype=np.int64) % _require_rows(len(tokens), context)
    return _gather(tokens, numbers.reshape(count, rows), context)


def count_rows(tokens: int, context: int) -> int:
    """Count the rows of `context + 1` tokens, `context` apart, in a text of `tokens` tokens."""
    return max(tokens - 1, 0) // context


def _require_rows(tokens: int, context: int) -> int:
    rows = count_rows(tokens, context)
    if not rows:
        raise DataError(
            f"one row takes context + 1 = {context + 1} tokens, but there are only {tokens}; give more text"
        )
    return rows


def shuffle(places: Words, epochs: Words, size: int, seed: int, stream: str) -> Words:
    """Return where the permutation of 0 ... size - 1 that belongs to (seed, stream, epoch) sends each place."""
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    base = np.frombuffer(hashlib.sha256(f"{stream}:{seed}".encode()).digest()[:8], dtype="<u8").astype(np.uint64)
    keys = _mix(base + (epochs + np.uint64(1)) * GOLDEN)
    numbers = _permute(places, keys, half)
    outside = np.flatnonzero(numbers >= size)
    while len(outside):
        numbers[outside] = _permute(numbers[outside], keys[outside], half)
        outside = outside[numbers[outside] >= size]
    return numbers


def _permute(numbers: Words, keys: Words, half: np.uint64) -> Words:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for step in range(1, ROUNDS + 1):
        keys = keys + GOLDEN
        left, right = right, left ^ (_mix(right ^ _mix(keys + np.uint64(step))) & mask)
    return (left << half) | right


def _mix(words: Words) -> Words:
    # The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _gather(tokens: Tokens, numbers: NDArray[np.int64], context: int) -> torch.Tensor:
    plain = np.asarray(tokens).view(np.ndarray)
    (stride,) = plain.strides
    windows = as_strided(
        plain, (count_rows(len(plain), context), context + 1), (context * stride, stride), writeable=False
    )
    return torch.from_numpy(windows[numbers].astype(np.int64))
