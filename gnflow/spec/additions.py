"""Express the `--set` overrides of a spec file as a second file that extends the first."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.spec.extends import assemble
from gnflow.spec.kinds import use_kinds_of
from gnflow.spec.merge import override
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.tree import Entry, Items, Node, Plain, Scalar, Table, make_plain
from gnflow.workspace import Workspace


def collect_additions(path: Path, sets: Sequence[str]) -> dict[str, Plain]:
    """Return the values that come from `--set` and not from the file or its bases.

    A list that has such a value is returned whole, because `extends` replaces whole lists.

    Raises SpecProblems.
    """
    problems: list[Problem] = []
    workspace = Workspace.find(path)
    with use_kinds_of(workspace):
        tree, _ = assemble(path, workspace.root, problems)
        tree = override(tree, sets, problems)
    if problems or not isinstance(tree, Table):
        raise SpecProblems(problems)
    return {key: make_plain(kept) for key, entry in tree.entries.items() if (kept := _keep_added(entry.node))}


def _keep_added(node: Node) -> Node | None:
    match node:
        case Scalar(origin=origin):
            return None if origin.kind == "file" else node
        case Table(entries=entries):
            inner = {key: (entry.origin, _keep_added(entry.node)) for key, entry in entries.items()}
            kept = {key: Entry(origin, added) for key, (origin, added) in inner.items() if added}
            return Table(kept, node.origin) if kept or node.origin.kind != "file" else None
        case Items(items=items):
            return node if node.origin.kind != "file" or any(map(_keep_added, items)) else None
        case _:
            return None
