"""Merge files and `--set` overrides key by key; the later value wins."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gnflow.spec.base import Spec, find_kind
from gnflow.spec.grammar import ROOT, Shape, step_into
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.source import parse
from gnflow.spec.tree import (
    DEFAULT,
    Broken,
    Entry,
    Items,
    KeyPath,
    Node,
    Origin,
    Scalar,
    Source,
    Table,
    expand,
    join_path,
)


def merge(base: Node, over: Node, shape: Shape | None = ROOT) -> Node:
    """Merge `over` into `base`: mappings key by key if their `kind` is the same; replace anything else."""
    if shape and shape.kinds:
        base, over = expand(base), expand(over)
    if not isinstance(base, Table) or not isinstance(over, Table):
        return over
    if base.kind and over.kind and base.kind != over.kind:
        return over
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        below = step_into(shape, over if over.kind else base, key)
        known = entries.get(key)
        entries[key] = Entry(entry.origin, merge(known.node, entry.node, below)) if known else entry
    return Table(entries, over.origin)


Step = tuple[str, Origin]


class Assignment(NamedTuple):
    """A value for the place at the end of `steps`; a step is a key and its origin."""

    steps: Sequence[Step]
    value: Node


def override(tree: Node, sets: Sequence[str], problems: list[Problem]) -> Node:
    """Return `tree` with every `key=value` of `sets` applied, in order."""
    return assign(tree, list(_read_sets(sets, problems)), problems)


def assign(tree: Node, assignments: Sequence[Assignment], problems: list[Problem]) -> Node:
    """Return `tree` with every value put in its place, in order; a value that has no place is a problem."""
    for steps, value in assignments:
        try:
            tree = _place(tree, ROOT, steps, value)
        except SpecProblems as found:
            problems += found.problems
    return tree


def _read_sets(sets: Sequence[str], problems: list[Problem]) -> Iterator[Assignment]:
    for text in sets:
        path, equals, _ = text.partition("=")
        source = Source(f"--set {path}", text, kind="set")
        try:
            if not equals or not all(path.split(".")):
                raise _make_problem(Origin(source), "`--set` takes key=value, for example `--set training.seed=3`")
            if not text[len(path) + 1 :].strip():
                raise _make_problem(Origin(source), "a value is missing; write `null` to remove a value")
            yield Assignment(_split_steps(source, path), parse(source, problems, start=len(path) + 1))
        except SpecProblems as found:
            problems += found.problems


def _split_steps(source: Source, path: str) -> list[Step]:
    steps, start = [], 0
    for name in path.split("."):
        steps.append((name, source.find_origin(start, start + len(name))))
        start += len(name) + 1
    return steps


def _place(node: Node | None, shape: Shape | None, steps: Sequence[Step], value: Node, path: KeyPath = ()) -> Node:
    """Return `node` with `value` at the end of `steps`; defaults on the way are written out as far as needed."""
    if not steps:
        return merge(node, value, shape) if node else value
    (name, origin), *rest = steps
    if isinstance(node, Items):
        index = _find_index(node, name, origin, path)
        item = _place(node.items[index], step_into(shape, node, index), rest, value, (*path, index))
        return Items((*node.items[:index], item, *node.items[index + 1 :]), node.origin)
    if node is None or (isinstance(node, Scalar) and node.value is None):
        node = Table({}, origin)
    table = expand(node) if shape and shape.kinds else node
    if isinstance(table, Broken):
        return table
    if not isinstance(table, Table):
        raise _make_problem(origin, f"`{join_path(path)}` is a single value; it holds no `{name}`")
    below = step_into(shape, table, name)
    if not rest:
        return merge(table, Table({name: Entry(origin, value)}, table.origin), shape)
    known = table.entries.get(name) or Entry(origin, _make_default(shape, table, name, origin) or Table({}, origin))
    return table.replace_entry(name, Entry(known.origin, _place(known.node, below, rest, value, (*path, name))))


def _find_index(items: Items, name: str, origin: Origin, path: KeyPath) -> int:
    count = len(items.items)
    if not (name.isascii() and name.isdigit()):
        raise _make_problem(
            origin, f"`{join_path(path)}` is a list; name an item by its number, as in `{join_path((*path, 0))}`"
        )
    if len(name) > 9 or int(name) >= count:
        held = f"its items are 0 to {count - 1}" if count else "it is empty"
        raise _make_problem(origin, f"`{join_path(path)}` has no item {name}; {held}")
    return int(name)


def _make_default(shape: Shape | None, table: Table, name: str, origin: Origin) -> Node | None:
    model = shape.find_model(table) if shape else None
    field = model.model_fields.get(name) if model else None
    return _make_node(field.get_default(), origin) if field and not field.is_required() else None


def _make_node(value: object, origin: Origin) -> Node | None:
    """Return the node that would be written for a default, without the fields that have their own defaults."""
    match value:
        case Spec():
            kind = find_kind(type(value))
            entries = {"kind": Entry(DEFAULT, Scalar(kind, kind, DEFAULT))} if kind else {}
            for name in value.model_fields_set - {"kind"}:
                node = _make_node(getattr(value, name), DEFAULT)
                entries |= {name: Entry(DEFAULT, node)} if node else {}
            return Table(entries, origin)
        case tuple():
            return Items(tuple(node for item in value if (node := _make_node(item, DEFAULT))), origin)
        case str() | int() | float() | bool():
            return Scalar(value, str(value), DEFAULT)
        case _:
            return None


def _make_problem(origin: Origin, message: str) -> SpecProblems:
    return SpecProblems([Problem(origin, message)])
