"""Report all faults of a corpus in one error. A reader yields a DataError in place of each item that it cannot read."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from gnflow.errors import DataError

NAMED = 10
Item = TypeVar("Item")


def require_sound(
    items: Iterable[Item | DataError], everything: Callable[[], Iterable[object]] | None = None, files: int = 0
) -> Iterator[Item]:
    """Yield items up to the first DataError; then raise all errors in `everything`, of so many files, as one."""
    for item in items:
        if isinstance(item, DataError):
            found = everything() if everything else [item]
            raise combine((fault for fault in found if isinstance(fault, DataError)), files) from None
        yield item


def combine(problems: Iterable[DataError], files: int = 0) -> DataError:
    """Combine errors into one: their number, the first lines of the first ten, and each advice once."""
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
