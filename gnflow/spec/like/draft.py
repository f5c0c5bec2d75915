"""A spec that is made from the settings of another tool: its values with their origins, and what it leaves out."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gnflow.errors import GnflowError
from gnflow.spec.canonical import format_value
from gnflow.spec.problems import UNPRINTABLE
from gnflow.spec.tree import Plain

LONGEST = 80  # characters of a value in a remark
LARGEST = 1 << 20  # bytes of a file of settings


class Unreadable(GnflowError):
    """A file of settings cannot be read."""

    exit_code = 2


class Given(NamedTuple):
    """A value of the spec."""

    path: str
    """Dotted key."""
    value: Plain
    origin: str = ""
    """The setting that the value comes from; empty if the key says it."""


class Lack(NamedTuple):
    """Something that has no counterpart in a spec."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


Found: TypeAlias = Given | Lack


class Draft(NamedTuple):
    """A spec before it is written."""

    given: tuple[Given, ...]
    lacks: tuple[Lack, ...]

    @classmethod
    def collect(cls, found: Iterable[Found]) -> "Draft":
        """Sort what a reader found."""
        every = list(found)
        return cls(
            tuple(each for each in every if isinstance(each, Given)),
            tuple(each for each in every if isinstance(each, Lack)),
        )

    def complete(self, source: Mapping[str, Plain]) -> "Draft":
        """Add the data, the optimizer and the length of a first run if the other tool's settings have none."""
        rest = {
            "data": [Given(f"data.source.{key}", value) for key, value in source.items()],
            "optimizer": [Given("optimizer.kind", "adamw"), Given("optimizer.microbatches", 4)],
            "training": [Given("training.rows", 8), Given("training.steps", 300), Given("training.start", "scratch")],
        }
        known = {each.path for each in self.given}
        absent = [
            name
            for name in rest
            if not any(path.startswith((f"{name}.source", f"{name}.kind", f"{name}.rows")) for path in known)
        ]
        more = [each for name in absent for each in rest[name]]
        lacks = (Lack(", ".join(absent), "these settings have none; those of the spec are a start"),) if absent else ()
        return Draft((*self.given, *more), (*self.lacks, *lacks))

    def write(self, name: str) -> str:
        """Return the spec as YAML, with the origin of each value beside it."""
        tree: dict[str, object] = {}
        for each in self.given:
            *above, key = each.path.split(".")
            table = tree
            for step in above:
                inner = table.setdefault(step, {})
                assert isinstance(inner, dict)
                table = inner
            table[key] = each
        return "\n".join([f"name: {name}", *_write_table(tree, "", top=True)]) + "\n"


def read_settings(file: Path) -> str:
    """Return the text of a file of settings. Raises Unreadable."""
    try:
        if file.stat().st_size > LARGEST:
            raise Unreadable(f"{file} has more than {LARGEST:,} bytes; expected a file of settings")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Unreadable(f"{file} cannot be read: {reason or error}") from None


def shorten(text: object) -> str:
    """Return a value of a foreign file on one short line that can stand in a comment."""
    line = " ".join(UNPRINTABLE.sub(" ", str(text)).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _write_table(table: Mapping[str, object], indent: str, top: bool = False) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Given):
            remark = f"  # {shorten(value.origin)}" if value.origin else ""
            yield f"{indent}{key}: {format_value(value.value)}{remark}"
        else:
            assert isinstance(value, Mapping)
            yield from ([""] if top else [])
            yield f"{indent}{key}:"
            yield from _write_table(value, indent + "  ")
