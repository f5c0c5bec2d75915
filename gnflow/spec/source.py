"""Parse YAML 1.2 text to a tree of values with their places. Limits are checked on events, before anything is built."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from gnflow import secrets
from gnflow.spec.lookalikes import find_before, name_lookalike
from gnflow.spec.problems import MOST, Problem, SpecProblems, make_printable
from gnflow.spec.scalar import Refused, parse_scalar
from gnflow.spec.syntax import explain_error
from gnflow.spec.tree import Broken, Entry, Items, Node, Origin, Scalar, Source, Table

BYTES, DEPTH, ALIASES, NODES = 1_000_000, 32, 64, 20_000
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")

_SURROGATE = re.compile("[\ud800-\udfff]")


def read(path: Path, name: str) -> Source:
    """Read a file. Raises SpecProblems if it is too large or not UTF-8."""
    with path.open("rb") as file:
        content = file.read(BYTES + 1)
    if len(content) > BYTES:
        raise SpecProblems([Problem(Origin(Source(name)), f"larger than {BYTES:,} bytes; this is not a spec")])
    try:
        return Source(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        good = content[: error.start].decode("utf-8-sig", "replace")
        source = Source(name, good + "\N{REPLACEMENT CHARACTER}")
        message = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise SpecProblems([Problem(source.find_origin(len(good), len(good) + 1), message)]) from None


def parse(source: Source, problems: list[Problem], start: int = 0) -> Node:
    """Return the tree of `source` from character `start`, and append mistakes that can be skipped to `problems`.

    Raises SpecProblems if nothing after a mistake can be understood.
    """
    if forbidden := _FORBIDDEN.search(source.text):
        origin = source.find_origin(*forbidden.span())
        raise SpecProblems([Problem(origin, f"character U+{ord(forbidden[0]):04X} is not allowed in a spec")])
    if directive := re.search("^%", source.text[start:], re.MULTILINE):
        origin = source.find_origin(start + directive.start(), start + directive.end())
        raise SpecProblems([Problem(origin, "a line begins with `%`; YAML directives are not allowed in a spec")])
    try:
        events = list(_Bounded(source, start).read_events())
    except MarkedYAMLError as error:
        message, mark = explain_error(error, source.text[start:])
        at = start + mark if mark is not None else len(source.text)
        problem = find_before(source, at) or Problem(source.find_origin(at, at + 1), message)
        raise SpecProblems([problem]) from None
    except (YAMLError, OverflowError, ValueError):
        raise SpecProblems(
            [Problem(Origin(source), "an escape, such as `\\U0011FFFF`, does not stand for a character")]
        ) from None
    if not events:
        raise SpecProblems([Problem(Origin(source), "the file is empty; a spec is a mapping of keys to values")])
    remaining = iter(events)
    return _Builder(source, start, problems).build_node(next(remaining), remaining)


class _Bounded:
    """The node events of the document, counted as if every alias were written out."""

    def __init__(self, source: Source, start: int):
        self._source, self._start = source, start
        self._open: list[tuple[int, int, str | None]] = []  # nodes before it, deepest level inside it, anchor
        self._anchors: dict[str, tuple[int, int]] = {}  # nodes, levels
        self._nodes = self._aliases = 0

    def read_events(self) -> Iterator[Event]:
        """Yield the events. Raises SpecProblems at the first excess."""
        documents = 0
        for event in YAML(typ="safe", pure=True).parse(self._source.text[self._start :]):
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._fail(event, "a second document begins here; a file must contain only one spec")
            elif isinstance(event, CollectionEndEvent):
                self._close()
                yield event
            elif isinstance(event, NodeEvent):
                self._count(event)
                yield event

    def _count(self, event: NodeEvent) -> None:
        nodes, levels = 1, 0
        if isinstance(event, AliasEvent):
            self._aliases += 1
            if self._aliases > ALIASES:
                self._fail(event, f"a spec may have at most {ALIASES} aliases")
            if event.anchor not in self._anchors:
                inside = any(anchor == event.anchor for *_, anchor in self._open)
                self._fail(event, f"`*{event.anchor}` " + ("holds itself" if inside else "names no anchor before it"))
            nodes, levels = self._anchors[event.anchor]
        elif isinstance(event, CollectionStartEvent):
            self._anchors.pop(event.anchor, None)
            self._open.append((self._nodes, len(self._open) + 1, event.anchor))
        elif event.anchor:
            self._anchors[event.anchor] = (1, 0)
        self._nodes += nodes
        level = len(self._open) + levels
        if self._nodes > NODES:
            self._fail(event, f"a spec may have at most {NODES:,} values, counted with aliases written out")
        if level > DEPTH:
            self._fail(event, f"values are nested more than {DEPTH} levels deep")
        if self._open:
            before, deepest, anchor = self._open[-1]
            self._open[-1] = (before, max(deepest, level), anchor)

    def _close(self) -> None:
        before, deepest, anchor = self._open.pop()
        if anchor:
            self._anchors[anchor] = (self._nodes - before, deepest - len(self._open))
        if self._open:
            outer, level, name = self._open[-1]
            self._open[-1] = (outer, max(level, deepest), name)

    def _fail(self, event: Event, message: str) -> None:
        raise SpecProblems([Problem(_find_origin(self._source, self._start, event), message)])


class _Builder:
    """A builder of nodes from events. A node that cannot be read becomes Broken, and the rest is still read."""

    def __init__(self, source: Source, start: int, problems: list[Problem]):
        self._source, self._start, self._problems = source, start, problems
        self._anchors: dict[str, Node] = {}
        self._enough = len(problems) + 2 * MOST  # of one file; the others would not be shown

    def build_node(self, event: Event, events: Iterator[Event]) -> Node:
        """Return the node that begins with `event`."""
        assert isinstance(event, NodeEvent)
        origin = _find_origin(self._source, self._start, event)
        if isinstance(event, AliasEvent):
            return replace(self._anchors[event.anchor], origin=origin)
        if isinstance(event, MappingStartEvent):
            node = self._build_table(events, origin)
        elif isinstance(event, SequenceStartEvent):
            node = self._build_items(events, origin)
        else:
            assert isinstance(event, ScalarEvent)
            node = self._build_scalar(event, origin)
        if event.tag is not None:
            node = self._report_broken(origin, f"tags such as `{event.tag}` are not allowed in a spec")
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _build_scalar(self, event: ScalarEvent, origin: Origin) -> Node:
        try:
            value = parse_scalar(event.value) if event.implicit[0] else event.value
        except Refused as refusal:
            return self._report_broken(origin, str(refusal))
        if _SURROGATE.search(event.value):
            return self._report_broken(origin, "an incomplete character (a surrogate escape)")
        if secrets.has_secret(event.value):
            return self._report_broken(
                origin, "a password or an access token is not allowed in a spec, because specs are stored and shown"
            )
        return Scalar(value, event.value, origin)

    def _build_items(self, events: Iterator[Event], origin: Origin) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(events), CollectionEndEvent):
            items.append(self.build_node(event, events))
        return Items(tuple(items), origin)

    def _build_table(self, events: Iterator[Event], origin: Origin) -> Node:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(events), CollectionEndEvent):
            key, value = self.build_node(event, events), self.build_node(next(events), events)
            match key:
                case Scalar(value="<<"):
                    self._report_broken(
                        key.origin, "`<<` is not part of YAML 1.2; use `extends` at the top of the file"
                    )
                case Scalar(value=str(name)) if name in entries:
                    first = entries[name].origin
                    self._report_broken(key.origin, f"key `{name}` is given twice; first on line {first.line}")
                case Scalar(value=str(name)):
                    entries[name] = Entry(key.origin, value)
                case Scalar(raw=raw):
                    self._report_broken(key.origin, "expected a name as key" + (f", got `{raw}`" if raw else ""))
                case Table() | Items():
                    self._report_broken(key.origin, "expected a name as key, got a list or a mapping")
        return Table(entries, origin)

    def _report_broken(self, origin: Origin, message: str) -> Broken:
        if len(self._problems) < self._enough:
            self._problems.append(name_lookalike(Problem(origin, make_printable(message))))
        return Broken(origin)


def _find_origin(source: Source, start: int, event: Event) -> Origin:
    first, last = event.start_mark, event.end_mark
    assert isinstance(first, StreamMark)
    assert isinstance(last, StreamMark)
    return source.find_origin(start + first.index, start + last.index)
