"""Values by dotted key, as a study file writes them and as `--set` takes them."""

import json
from collections.abc import Iterator, Mapping

from gnflow.spec.canonical import format_value
from gnflow.spec.merge import Assignment
from gnflow.spec.problems import Problem
from gnflow.spec.tree import Entry, KeyPath, Node, Origin, Scalar, Table, Value, make_plain, walk

Overrides = Mapping[str, Entry]

# A study has keys of its own for these.
RESERVED = {
    "name": "the name of the arm",
    "training.seed": "`seeds` and `tuning.seed`",
    "training.target": "`targets`, `budget` or `tuning.target`",
    "tuning": "the tuning of the study",
    "tracking.study": "the name of the study",
}


def find_node(tree: Node, *path: str | int) -> Node:
    """Return the node at `path`, or the last node on the way if the tree ends before."""
    *_, (_, node) = walk(tree, path)
    return node


def find_entries(tree: Node, *path: str | int) -> Mapping[str, Entry]:
    """Return the entries of the mapping at `path`; empty if there is no mapping."""
    steps = list(walk(tree, path))
    node = steps[-1][1]
    return node.entries if len(steps) > len(path) and isinstance(node, Table) else {}


def make_override(key: str, value: Value, origin: Origin) -> Overrides:
    """Make an override that follows from the study file at `origin`."""
    return {key: Entry(origin, Scalar(value, format_value(value), origin))}


def merge_overrides(*layers: Overrides) -> Overrides:
    """Merge layers of overrides; a later layer replaces the same key of an earlier one."""
    together: dict[str, Entry] = {}
    for layer in layers:
        for key, entry in layer.items():
            together.pop(key, None)
            together[key] = entry
    return together


def make_assignments(overrides: Overrides) -> list[Assignment]:
    """Convert overrides for the loader; each part of a key keeps its own place."""
    return [Assignment(list(_locate_steps(key, entry.origin)), entry.node) for key, entry in overrides.items()]


def format_overrides(overrides: Overrides) -> tuple[str, ...]:
    """Format each override as `key=value`."""
    return tuple(f"{key}={_format_node(entry.node)}" for key, entry in overrides.items())


def find_misplaced(overrides: Overrides) -> dict[str, Problem]:
    """Report keys that are not keys of a spec, or that the study itself sets."""
    problems = {}
    for key, entry in overrides.items():
        if not all(key.split(".")):
            problems[key] = Problem(entry.origin, f"expected a dotted key such as `training.rows`, got `{key}`")
        for reserved, giver in RESERVED.items():
            if f"{key}.".startswith(f"{reserved}."):
                problems[key] = Problem(entry.origin, f"`{key}` is given by {giver}; remove it here")
    return problems


def find_given_by_budget(overrides: Overrides) -> list[Problem]:
    """Report the length of a run where the `budget` of the study gives it. Trials may draw `training.steps`."""
    return [
        Problem(overrides[key].origin, f"`{key}` is given by `budget`; remove it here, or draw steps in a `space`")
        for key in ("training.steps", "training.tokens")
        if key in overrides
    ]


def keep_one_horizon(overrides: Overrides) -> Overrides:
    """Remove the tokens of a run where its steps are given after them, since a spec has either."""
    keys = list(overrides)
    steps = overrides.get("training.steps")
    if steps is None or make_plain(steps.node) is None:
        return overrides
    if "training.tokens" in keys and keys.index("training.tokens") > keys.index("training.steps"):
        return overrides
    return merge_overrides(overrides, make_override("training.tokens", None, steps.origin))


def split_key(key: str) -> KeyPath:
    """Split a dotted key, such as `optimizer.rules.0.use`, into the steps of a path."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def _locate_steps(key: str, origin: Origin) -> Iterator[tuple[str, Origin]]:
    if origin.line == 0 or origin.width < len(key):  # it does not stand there as such
        yield from ((name, origin) for name in key.split("."))
        return
    column = origin.column + (1 if origin.width > len(key) else 0)  # after a quote
    for name in key.split("."):
        yield name, Origin(origin.source, origin.line, column, len(name))
        column += len(name) + 1


def _format_node(node: Node) -> str:
    value = make_plain(node)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else format_value(value)
