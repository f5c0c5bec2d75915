"""The crew of a run: the processes that work on it, and the one order in which they add micro-batches.

The micro-batches 0 ... k-1 of a mean are cut into `shares` contiguous groups. Within a group one is added after the
other. Then the groups are added in pairs, the pairs in pairs, and the rest from the right to the left. This order
depends on k and on `shares` alone, so that any number of processes computes the same bits. With one share it is a
running sum.

This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Tree: TypeAlias = "dict[str, Tensor]"
T = TypeVar("T")


class Crew:
    """The processes of a run. This class is a crew of one process, which has nobody to talk to.

    All processes call the same methods in the same order.
    """

    rank = 0
    """The number of this process. Process 0 alone writes to the disk."""
    size = 1
    """Number of processes."""

    def __init__(self, shares: int = 1, owners: Mapping[str, int] | None = None) -> None:
        self.shares, self.owners = shares, owners or {}

    @property
    def leads(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def divide(self, shares: int, owners: Mapping[str, int]) -> Self:
        """Return the same crew with another order of sums and other owners (block -> rank)."""
        crew = copy(self)
        crew.shares, crew.owners = shares, owners
        return crew

    def make_single(self) -> Crew:
        """Return a crew of this process alone, which adds in the same order."""
        return Crew(self.shares)

    def add_up(self, tree_of: Callable[[int], Tree], count: int, owners: Mapping[str, int] | None = None) -> Tree:
        """Return the sum of `tree_of(m)` over the micro-batches m = 0 ... count - 1. It consumes the trees.

        With `owners` (tensor -> rank) a process may get only the tensors that it owns.
        """
        groups = split(count, min(self.shares, count))
        found: PairwiseSum[Tree] = PairwiseSum(_add_into)
        for group in self.pick_own(self.list_parts(len(groups))):
            found.put(Span(group, group + 1), add_in_order(tree_of, groups[group]))
        total = self.complete(found, len(groups), owners)
        # An exchange makes tensors contiguous, and a kernel may round differently for another layout.
        return {name: tensor.contiguous() for name, tensor in total.items()} if self.shares > 1 else total

    def list_parts(self, count: int) -> list[range]:
        """Return the part of `count` items that each process computes.

        If there are fewer items than processes, the list has one part, and each process computes all items.
        """
        return split(count, self.size if count >= self.size else 1)

    def pick_own(self, parts: Sequence[range]) -> range:
        """Return the part of this process."""
        return parts[self.rank % len(parts)]

    def gather_values(self, value_of: Callable[[int], Tensor], count: int) -> Tensor:
        """Return the 0-D `value_of(m)` of the micro-batches m = 0 ... count - 1 as a tensor, (count,)."""
        parts = self.list_parts(count)
        return self.gather([value_of(number) for number in self.pick_own(parts)], parts)

    def list_summed(self, count: int) -> list[range]:
        """Return the parts of the micro-batches whose trees `add_up` asks each process for."""
        groups = split(count, min(self.shares, count))
        return [range(groups[part.start].start, groups[part.stop - 1].stop) for part in self.list_parts(len(groups))]

    def gather(self, mine: Sequence[Tensor], parts: Sequence[range]) -> Tensor:
        """Return the 0-D values of all `parts` as a vector, given those of the part of this process."""
        import torch

        return torch.stack(list(mine))

    def gather_owned(self, mine: Mapping[str, Tensor], owners: Mapping[str, int], like: Tensor) -> Tensor:
        """Return the vectors of all items in the order of `owners` (item -> rank), given those of our own items.

        `like` has the form of each vector.
        """
        import torch

        return torch.stack([mine[item] for item in owners])

    def complete(self, found: PairwiseSum[Tree], count: int, owners: Mapping[str, int] | None = None) -> Tree:
        """Return the sum over all `count` groups, given the sum over the groups of this process."""
        return found.finish()

    def spread(self, trees: Mapping[int, Tree]) -> None:
        """Send the tensors of `trees[rank]` from each rank to all others, which overwrite theirs."""

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, by rank. JSON must be able to hold them."""
        return [value]

    def tell(self, value: T) -> T:
        """Return the value of process 0."""
        return self.collect(value)[0]

    def find_largest(self, *numbers: float) -> list[float]:
        """Return, for each number, the largest that any process has."""
        rows = self.collect(numbers)
        return [max(column) for column in zip(*rows, strict=True)]

    def run_first(self, do: Callable[[], T], then: Callable[[], T] | None = None) -> T:
        """Call `do` in process 0, and `then` (by default `do`) in the others when it has returned.

        If it failed, all processes raise its error.
        """
        return do()

    def lead(self, do: Callable[[], object]) -> None:
        """Call `do` in process 0 while the others wait. If it failed, all processes raise its error."""
        self.run_first(do, lambda: None)

    def measure_waiting(self) -> float:
        """Return the seconds in which this process has exchanged tensors or waited for others so far."""
        return 0.0

    def expect_within(self, seconds: float) -> None:
        """Count a process as lost if it keeps the others waiting for longer than so many seconds."""


ALONE = Crew()


class Span(NamedTuple):
    """The groups start ... stop - 1."""

    start: int
    stop: int


class PairwiseSum(Generic[T]):
    """A sum of neighbouring spans that come in order. It holds about log2(number of groups) parts."""

    def __init__(self, add: Callable[[T, T], T]) -> None:
        self.add = add
        self.parts: list[tuple[Span, T]] = []

    def put(self, span: Span, value: T) -> None:
        """Add the value of the next span. Two spans become one where their sum is a node of the tree of all groups."""
        while self.parts:
            before, waiting = self.parts[-1]
            length = span.stop - span.start
            if before.stop - before.start != length or before.start % (2 * length):
                break
            self.parts.pop()
            span, value = Span(before.start, span.stop), self.add(waiting, value)
        self.parts.append((span, value))

    def finish(self) -> T:
        """Add the remaining parts, from the right to the left, and return the sum."""
        _, total = self.parts[-1]
        for _, value in reversed(self.parts[:-1]):
            total = self.add(value, total)
        return total


def split(count: int, parts: int) -> list[range]:
    """Cut 0 ... count - 1 into so many neighbouring ranges, as even as possible."""
    cuts = [part * count // parts for part in range(parts + 1)]
    return [range(start, stop) for start, stop in pairwise(cuts)]


def list_spans(groups: range) -> list[Span]:
    """Return the spans of the parts of a `PairwiseSum` over these groups."""
    found: PairwiseSum[None] = PairwiseSum(lambda one, two: None)
    for group in groups:
        found.put(Span(group, group + 1), None)
    return [span for span, _ in found.parts]


def list_owned(owners: Mapping[str, int], size: int) -> list[list[str]]:
    """Return the items of each of `size` processes, given the rank that owns each."""
    return [[item for item, owner in owners.items() if owner == rank] for rank in range(size)]


def find_chunk_size(numbers: int, size: int) -> int:
    """Return the length of one of `size` equal chunks that hold so many numbers."""
    return -(-numbers // size)


def add_in_order(tree_of: Callable[[int], Tree], numbers: range) -> Tree:
    """Add one tree after the other into the first."""
    total = tree_of(numbers[0])
    for number in numbers[1:]:
        total = _add_into(total, tree_of(number))
    return total


def _add_into(a: Tree, b: Tree) -> Tree:
    """Add b to a in place."""
    import torch

    torch._foreach_add_(list(a.values()), list(b.values()))
    return a
