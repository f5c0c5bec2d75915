"""A process of a crew that does not exist, to ask how much it would send and hold.

A step on the meta device may be taken with it: what others would send has the right form, and no content.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from gnflow.crew import Crew, find_chunk_size, list_spans

T = TypeVar("T")
BYTES = 4  # of a number


class Member(Crew):
    """A process of a crew that does not exist, to ask what it would do."""

    def __init__(self, rank: int, size: int, shares: int, owners: Mapping[str, int]) -> None:
        super().__init__(shares, owners)
        self.rank, self.size = rank, size

    def gather(self, mine: Sequence[Tensor], parts: Sequence[range]) -> Tensor:
        """Return a vector of the values of all processes."""
        return mine[0].new_empty(sum(map(len, parts)))

    def gather_owned(self, mine: Mapping[str, Tensor], owners: Mapping[str, int], like: Tensor) -> Tensor:
        """Return a matrix of the vectors of all items."""
        return like.new_empty(len(owners), *like.shape)

    def collect(self, value: T) -> list[T]:
        """Return the value as if all processes had the same."""
        return [value] * self.size

    def count_bytes_of_sum(self, numbers: int, count: int) -> int:
        """Return the bytes that it sends for a sum of `count` trees of so many numbers."""
        if not (spans := self._count_spans(count)):
            return 0
        return (spans + 1) * find_chunk_size(numbers, self.size) * BYTES * (self.size - 1)

    def count_bytes_to_owners(self, numbers: int, owned: int, count: int) -> int:
        """Return the bytes that it sends for a sum of which each process gets what it owns."""
        return self._count_spans(count) * (numbers - owned) * BYTES

    def _count_spans(self, count: int) -> int:
        """Return how many sums it sends for a sum of `count` trees; 0 if each process computes all of it."""
        parts = self.list_parts(min(self.shares, count))
        return len(list_spans(self.pick_own(parts))) if len(parts) > 1 else 0

    def count_bytes_of_values(self, parts: list[range], each: int = BYTES) -> int:
        """Return the bytes that it sends for one number of each micro-batch."""
        return max(map(len, parts)) * each * (self.size - 1) if len(parts) > 1 else 0

    def count_bytes_of_mean_loss(self, count: int, each: int) -> int:
        """Return the bytes that it sends for the mean loss that comes with a gradient over `count` micro-batches."""
        return self.count_bytes_of_values(self.list_summed(count), each) if count > 1 else 0

    def count_bytes_held(self, numbers: int, owned: int | None, count: int) -> int:
        """Return the largest number of bytes that it holds for a sum beside the trees: what it sends and receives.

        `owned` numbers of the result are its own; None if all processes get all of it.
        """
        parts = self.list_parts(min(self.shares, count))
        if len(parts) == 1:
            return 0
        whole = find_chunk_size(numbers, self.size) * self.size if owned is None else numbers
        own = whole // self.size if owned is None else owned
        sent = self._count_spans(count) * whole
        received = own * sum(len(list_spans(part)) for part in parts)
        return BYTES * max(sent + max(sent, received), 2 * whole)

    def count_bytes_of_losses(self, count: int) -> int:
        """Return the bytes that it sends for the mean loss over `count` micro-batches."""
        return self.count_bytes_of_values(self.list_parts(count))
