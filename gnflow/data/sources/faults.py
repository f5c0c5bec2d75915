"""Everything that is wrong with a corpus, told at once: a reader yields a DataError in place of what it cannot read."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from gnflow.errors import DataError

NAMED = 10
Item = TypeVar("Item")


def require_sound(
    items: Iterable[Item | DataError], everything: Callable[[], Iterable[object]] | None = None, files: int = 0
) -> Iterator[Item]:
    """The items until a DataError is among them; then all those in `everything`, so many files, are raised as one."""
    for item in items:
        if isinstance(item, DataError):
            found = everything() if everything else [item]
            raise combine((fault for fault in found if isinstance(fault, DataError)), files) from None
        yield item


def combine(problems: Iterable[DataError], files: int = 0) -> DataError:
    """One error for all: their number, the first lines of the first ten, and each advice once."""
    remaining = iter(problems)
    named = list(islice(remaining, NAMED))
    if len(named) == 1:
        return named[0]
    count = len(named) + sum(1 for _ in remaining)
    among = f" in {files:,} {'file' if files == 1 else 'files'}" if files else ""
    first = f", the first {NAMED}" if count > NAMED else ""
    told = [str(problem).partition("\n") for problem in named]
    advice = dict.fromkeys(rest for _, _, rest in told if rest)
    return DataError("\n".join([f"{count:,} faults{among}{first}:", *(line for line, _, _ in told), *advice]))
