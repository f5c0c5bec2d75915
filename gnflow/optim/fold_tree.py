"""Merge items pairwise up a binary tree as they come, so that at most log2(n) + 1 of them are alive."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Join = Callable[[str, Item, Item], Item]
"""Merges two neighbours. Its first argument names the merge: `2.1` is the first one on the second level."""


def fold_tree(leaves: Iterable[Item], join: Join[Item]) -> Item:
    """Merge the leaves, of which there is at least one, in their order."""
    waiting: list[tuple[int, Item]] = []
    counts: Counter[int] = Counter()

    def join_last_two() -> None:
        (height, two), (other, one) = waiting.pop(), waiting.pop()
        level = max(height, other) + 1
        counts[level] += 1
        waiting.append((level, join(f"{level}.{counts[level]}", one, two)))

    for leaf in leaves:
        waiting.append((0, leaf))
        del leaf  # a merged leaf would stay alive while the next one is made
        while len(waiting) > 1 and waiting[-1][0] == waiting[-2][0]:
            join_last_two()
    while len(waiting) > 1:  # the number of leaves is not a power of two
        join_last_two()
    return waiting[0][1]


def name_merges(leaves: int) -> list[str]:
    """Name the merges of the tree, in their order."""
    names: list[str] = []

    def join(name: str, one: int, two: int) -> int:
        names.append(name)
        return one

    fold_tree(range(leaves), join)
    return names
