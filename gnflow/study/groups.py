"""Group arms by method, so that many arms need few colours: `adamw_2k` and `adamw_16k` are two levels of `adamw`."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

SEPARATOR = re.compile(r"[_-]")


class Member(NamedTuple):
    """The place of one arm among groups."""

    group: str
    level: str
    """Name of the arm without the name of its group, or the whole name if nothing would be left."""
    place: int
    """Place of the group among the groups."""
    rank: int
    """Place of the arm in its group."""
    size: int
    """Number of arms of the group."""


def group_arms(names: Sequence[str], most: int) -> dict[str, Member]:
    """Group arms if there are more than `most`: by the name without its last word, else by its first word.

    Each arm is a group of its own if there are at most `most` arms, or if no way of grouping makes as few groups.
    """
    ways: tuple[Callable[[str], str], ...] = (lambda name: name, _drop_last_word, _take_first_word)
    heads = next((made for way in ways if len(set(made := [way(name) for name in names])) <= most), list(names))
    groups = list(dict.fromkeys(heads))
    members: dict[str, Member] = {}
    for name, head in zip(names, heads, strict=True):
        others = [other for other, its in zip(names, heads, strict=True) if its == head]
        level = name if len(others) == 1 else name.removeprefix(head).lstrip("_-") or name
        members[name] = Member(head, level, groups.index(head), others.index(name), len(others))
    return members


def _drop_last_word(name: str) -> str:
    places = [found.start() for found in SEPARATOR.finditer(name)]
    return name[: places[-1]] if places else name


def _take_first_word(name: str) -> str:
    return SEPARATOR.split(name)[0] or name
