"""Small corpora, and reading them back from their tokens."""

import json

import numpy as np

from gnflow.data.batches import Tokens
from gnflow.spec.data import Text

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "runs",
    "away",
    "from",
    "king",
    "lear",
]


def text(**section: object) -> Text:
    """The `data:` section with these values."""
    return Text.model_validate(section)


def prose(words: int, seed: int = 0) -> str:
    """Text that differs with the seed, eight words to a line."""
    numbers = [(word * 7919 + seed * 104729 + word * word) % 9973 for word in range(words)]
    chosen = [WORDS[number % len(WORDS)] + ("" if number % 5 else str(number)) for number in numbers]
    return "".join(" ".join(chosen[start : start + 8]) + "\n" for start in range(0, words, 8))


def lines(*rows: object) -> str:
    """A JSONL file."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def documents(tokens: Tokens) -> list[str]:
    """The documents behind the ids of plain bytes."""
    ids = np.asarray(tokens)
    parts = np.split(ids, np.flatnonzero(ids == 256) + 1)
    return [bytes(part[part != 256].tolist()).decode() for part in parts if len(part)]
