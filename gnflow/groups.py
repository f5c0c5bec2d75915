"""Which loss a token bears as a target: the task of its row, and its own modality."""

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
"""In a micro-batch a token carries 1 + its index here; 0 bears no loss."""
