"""A parsed spec as a tree of values, each with the file, line and column that it came from."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

Value = str | int | float | bool | None
Plain = Value | list["Plain"] | dict[str, "Plain"]
KeyPath = tuple[str | int, ...]

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, eq=False)
class Source:
    """One file, or one `--set`, with its text."""

    name: str
    text: str = ""
    kind: Literal["file", "set", "default"] = "file"

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _LINE_END.finditer(self.text))]

    @cached_property
    def _lines(self) -> list[str]:
        return _LINE_END.split(self.text)

    def get_line(self, number: int) -> str:
        """Return line `number`, counted from 1, without its line break."""
        return self._lines[number - 1]

    def find_start(self, number: int) -> int:
        """Return the position of the first character of line `number`."""
        return self._starts[number - 1]

    def find_origin(self, start: int, end: int) -> "Origin":
        """Return the origin of the characters from `start` to `end`, up to the end of their first line."""
        line = bisect_right(self._starts, start)
        column = start - self._starts[line - 1]
        width = min(end - start, len(self.get_line(line)) - column)
        return Origin(self, line, column + 1, max(width, 1))


@dataclass(frozen=True)
class Origin:
    """The origin of a value. Lines and columns count from 1; line 0 means the source as a whole."""

    source: Source
    line: int = 0
    column: int = 0
    width: int = 1

    @property
    def kind(self) -> Literal["file", "set", "default"]:
        """A file, a `--set`, or the default of the grammar."""
        return self.source.kind

    def __str__(self) -> str:
        located = self.kind == "file" and self.line
        return f"{self.source.name}:{self.line}:{self.column}" if located else self.source.name

    def to_json(self) -> dict[str, Plain]:
        """Return the fields for `--json`."""
        match self.kind:
            case "file":
                return {"kind": "file", "file": self.source.name, "line": self.line, "column": self.column}
            case "set":
                return {"kind": "set", "set": self.source.text}
            case "default":
                return {"kind": "default"}


DEFAULT = Origin(Source("default", kind="default"))


@dataclass(frozen=True)
class Scalar:
    """One value; `raw` is its text in the file."""

    value: Value
    raw: str
    origin: Origin


@dataclass(frozen=True)
class Entry:
    """A key: its origin, and the node that it holds."""

    origin: Origin
    node: "Node"


@dataclass(frozen=True)
class Table:
    """A YAML mapping."""

    entries: Mapping[str, Entry]
    origin: Origin

    @property
    def kind(self) -> str | None:
        """The text under `kind`, if there is one."""
        entry = self.entries.get("kind")
        value = entry.node.value if entry and isinstance(entry.node, Scalar) else None
        return value if isinstance(value, str) else None

    def replace_entry(self, key: str, entry: Entry) -> "Table":
        """Return the same table with one key added or replaced."""
        return replace(self, entries={**self.entries, key: entry})


@dataclass(frozen=True)
class Items:
    """A YAML list."""

    items: tuple["Node", ...]
    origin: Origin


@dataclass(frozen=True)
class Broken:
    """A node that could not be read; its problem is already reported."""

    origin: Origin


Node = Scalar | Table | Items | Broken


def make_plain(node: Node) -> Plain:
    """Return the values without their origins."""
    match node:
        case Scalar(value=value):
            return value
        case Table(entries=entries):
            return {key: make_plain(entry.node) for key, entry in entries.items()}
        case Items(items=items):
            return [make_plain(item) for item in items]
        case Broken():
            return None


def expand(node: Node) -> Node:
    """Return `{kind: muon}` for the text `muon`; return anything else as it is."""
    if isinstance(node, Scalar) and isinstance(node.value, str):
        return Table({"kind": Entry(node.origin, node)}, node.origin)
    return node


def walk(node: Node, path: KeyPath) -> Iterator[tuple[Origin, Node]]:
    """Yield the origin of the key and the node at each step of `path`, from the root, as far as the tree goes."""
    yield node.origin, node
    for step in path:
        match expand(node) if isinstance(step, str) else node:
            case Table(entries=entries) if isinstance(step, str) and step in entries:
                origin, node = entries[step].origin, entries[step].node
            case Items(items=items) if isinstance(step, int) and step < len(items):
                node = items[step]
                origin = node.origin
            case Scalar() if step == 0:  # a single value that stands for a list of one
                origin = node.origin
            case _:
                return
        yield origin, node


def find_place(key: Origin, node: Node) -> Origin:
    """Return the place that an error about `node` points at: a single value, or else the key."""
    return node.origin if isinstance(node, Scalar) and (node.raw or node.value is not None) else key


def join_path(path: KeyPath) -> str:
    """Join the steps of a path, as in `optimizer.rules.0.match`."""
    return ".".join(map(str, path))
