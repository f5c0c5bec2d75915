"""A crew of several processes, over torch.distributed. Processes move bytes; every addition is made here, in one order.

An exchange stands between compiled regions and never inside `jvp` or `vjp`: on torch 2.13 the tangent of a collective
is zero, without an error. Large tensors go through the backend of the device (gloo or NCCL), short messages as JSON
through gloo.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from gnflow import errors
from gnflow.crew import Crew, PairwiseSum, Span, Tree, find_chunk_size, list_owned, list_spans
from gnflow.errors import EnvironmentProblem, GnflowError

T = TypeVar("T")
# torch 2.13 calls it by a new name.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


ELSEWHERE = "process 0 has said so"
"""The note of an error that another process has raised too."""


class LostCrew(EnvironmentProblem):
    """Another process of the run has ended or does not answer."""


class Processes(Crew):
    """The processes of a group of torch.distributed; by default of all."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        super().__init__()
        self.group = group or dist.group.WORLD
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.messages = self.group if dist.get_backend(group) == "gloo" else dist.new_group(backend="gloo")
        self.count = Count()

    def gather(self, mine: Sequence[Tensor], parts: Sequence[range]) -> Tensor:
        """Return the values of all processes in the order of the parts."""
        here = torch.stack(list(mine))
        if len(parts) == 1:
            return here
        longest = max(map(len, parts))
        padded = torch.nn.functional.pad(here, (0, longest - len(here)))
        found = padded.new_empty(self.size * longest)
        with self._exchange("values", padded.nbytes * (self.size - 1)):
            _all_gather(found, padded, group=self.group)
        return torch.cat([row[: len(part)] for row, part in zip(found.view(self.size, -1), parts, strict=True)])

    def gather_owned(self, mine: Mapping[str, Tensor], owners: Mapping[str, int], like: Tensor) -> Tensor:
        """Return the vectors of all items in the order of `owners` (item -> rank), given those of our own items."""
        held = list_owned(owners, self.size)
        longest = max(map(len, held))
        own = [mine[item] for item in held[self.rank]]
        padded = torch.stack([*own, *[torch.zeros_like(like)] * (longest - len(own))])
        found = padded.new_empty(self.size * longest, *like.shape)
        with self._exchange("values", padded.nbytes * (self.size - 1)):
            _all_gather(found, padded, group=self.group)
        places = {item: rank * longest + i for rank, items in enumerate(held) for i, item in enumerate(items)}
        return found[torch.tensor([places[item] for item in owners], device=found.device)]

    def complete(self, found: PairwiseSum[Tree], count: int, owners: Mapping[str, int] | None = None) -> Tree:
        """Return the sum over all groups.

        The flat vector is cut into one chunk for each process, which adds the sums of all processes over its chunk
        and sends the result to all. With one sum from each process these are the bytes of a ring's all-reduce. With
        `owners` the chunks are the tensors of each owner, which keeps the result.
        """
        parts = self.list_parts(count)
        if len(parts) == 1:
            return super().complete(found, count)
        mine, spans = [tree for _, tree in found.parts], [list_spans(part) for part in parts]
        if owners is not None:
            held = list_owned({name: owners[name] for name in mine[0]}, self.size)
            widths = [sum(mine[0][name].numel() for name in names) for names in held]
            order = [name for names in held for name in names]
            mine = [{name: tree[name] for name in order} for tree in mine]
            own = self._add_chunk(mine, widths, spans)
            return _unflatten(own, {name: mine[0][name] for name in held[self.rank]})
        width = find_chunk_size(sum(tensor.numel() for tensor in mine[0].values()), self.size)
        own = self._add_chunk(mine, [width] * self.size, spans)
        whole = own.new_empty(width * self.size)
        with self._exchange("a sum", own.nbytes * (self.size - 1)):
            _all_gather(whole, own, group=self.group)
        return _unflatten(whole, mine[0])

    def _add_chunk(self, mine: Sequence[Tree], widths: Sequence[int], spans: Sequence[Sequence[Span]]) -> Tensor:
        """Send to each process its chunk of our sums; add those of all processes over our own chunk.

        `widths` are the lengths of the chunks, and `spans` the groups that each sum of each process is over.
        """
        flat = [torch.split(_flatten(tree, sum(widths)), list(widths)) for tree in mine]
        sent = torch.cat([chunk for chunks in zip(*flat, strict=True) for chunk in chunks])
        del flat
        width = widths[self.rank]
        received = sent.new_empty(sum(map(len, spans)), width)
        with self._exchange("a sum", sent.nbytes - len(mine) * width * sent.element_size()):
            dist.all_to_all_single(
                received.view(-1),
                sent,
                [len(part) * width for part in spans],
                [len(mine) * each for each in widths],
                group=self.group,
            )
        del sent
        total: PairwiseSum[Tensor] = PairwiseSum(torch.add)
        for span, row in zip(chain.from_iterable(spans), received, strict=True):
            total.put(span, row)
        return total.finish()

    def spread(self, trees: Mapping[int, Tree]) -> None:
        """Send the tensors of `trees[rank]` from each rank to all others, which overwrite theirs."""
        for rank, tree in sorted(trees.items()):
            for kind in dict.fromkeys(tensor.dtype for tensor in tree.values()):
                tensors = {name: tensor for name, tensor in tree.items() if tensor.dtype == kind}
                flat = _flatten(tensors, sum(tensor.numel() for tensor in tensors.values()))
                with self._exchange("results", flat.nbytes * (self.size - 1) if rank == self.rank else 0):
                    dist.broadcast(flat, group=self.group, group_src=rank)
                if rank != self.rank:
                    for name, tensor in _unflatten(flat, tensors).items():
                        tree[name] = tensor

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, by rank. JSON must be able to hold them."""
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._wait("a message"):
            dist.all_gather(lengths, torch.tensor([len(content)]), group=self.messages)
            longest = int(max(lengths))
            found = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            padded = torch.nn.functional.pad(content, (0, longest - len(content)))
            dist.all_gather(found, padded, group=self.messages)
        return [
            json.loads(row[: int(length)].numpy().tobytes()) for row, length in zip(found, lengths, strict=True)
        ]  # fmt: skip

    def run_first(self, do: Callable[[], T], then: Callable[[], T] | None = None) -> T:
        """Call `do` in process 0, and `then` (by default `do`) in the others when it has returned.

        If it failed, all processes raise its error.
        """
        result, failed, problem = None, None, None
        if self.leads:
            try:
                result = do()
            except Exception as error:
                problem, failed = error, (error.exit_code if isinstance(error, GnflowError) else 1, str(error))
        failed = self.tell(failed)
        if problem is not None:
            raise problem
        if failed is not None:
            raise _error_with(*failed)
        return cast("T", result) if self.leads else (then or do)()

    def measure_waiting(self) -> float:
        """Return the seconds in which this process has exchanged tensors or waited for others so far.

        On a GPU the step must be at its end, so that the device has passed every exchange.
        """
        self.count.seconds += sum(began.elapsed_time(ended) for began, ended in self.count.marks) / 1000
        self.count.marks.clear()
        return self.count.seconds

    def expect_within(self, seconds: float) -> None:
        """Count a process as lost if it keeps the others waiting for longer than so many seconds."""
        # torch has no public function that changes the timeout of an existing group.
        for group in {self.group, self.messages}:
            dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)

    @contextmanager
    def _exchange(self, what: str, sent: int) -> Iterator[None]:
        """Count the bytes that go to other processes, and the time."""
        self.count.sent += sent
        if self.messages is self.group:
            with self._wait(what):
                yield
            return
        # A GPU exchanges later than Python asks it to, so the device itself marks when.
        marks = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        marks[0].record()
        with self._wait(what):
            yield
        marks[1].record()
        self.count.marks.append(marks)

    @contextmanager
    def _wait(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise LostCrew(
                f"process {self.rank} of {self.size} has lost the others while it exchanged {what}: {reason}"
            ) from error
        self.count.seconds += time.perf_counter() - began


class Count:
    """Bytes that this process has sent in tensors, and seconds in which it exchanged or waited."""

    def __init__(self) -> None:
        self.sent, self.seconds = 0, 0.0
        self.marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []


def _flatten(tree: Tree, length: int) -> Tensor:
    """Join all tensors, which have one type, into a vector of this length, padded with zeros."""
    (kind,) = {tensor.dtype for tensor in tree.values()}
    flat = torch.zeros(length, dtype=kind, device=next(iter(tree.values())).device)
    torch.cat([tensor.flatten() for tensor in tree.values()], out=flat[: sum(t.numel() for t in tree.values())])
    return flat


def _unflatten(flat: Tensor, like: Tree) -> Tree:
    """Copy each tensor out of a vector: a view may be aligned in another way, and kernels may round differently."""
    lengths = [tensor.numel() for tensor in like.values()]
    parts = torch.split(flat[: sum(lengths)], lengths)
    return {name: part.view(like[name].shape).clone() for name, part in zip(like, parts, strict=True)}


def _error_with(code: int, words: str) -> GnflowError:
    """Make the error that process 0 had."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GnflowError)]
    error = next((kind for kind in kinds if kind.exit_code == code), GnflowError)(words)
    error.add_note(ELSEWHERE)
    return error
