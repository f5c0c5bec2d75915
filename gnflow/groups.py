"""Groups of target tokens by the task of their row and by their own modality."""

from typing import Literal, NamedTuple, TypeAlias

Task: TypeAlias = Literal["text", "understanding", "generation"]
Modality: TypeAlias = Literal["text", "image"]


class Group(NamedTuple):
    """Tokens of one modality in the rows of one task."""

    task: Task
    modality: Modality


GROUPS = (
    Group("text", "text"),
    Group("understanding", "text"),
    Group("understanding", "image"),
    Group("generation", "text"),
    Group("generation", "image"),
)
"""The groups by number: a token in a micro-batch has 1 + the index of its group; a token with 0 has no loss."""
