"""What `--set` adds to a spec file, as the file that would say the same with `extends`."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.spec.extends import assembled
from gnflow.spec.kinds import within
from gnflow.spec.merge import overridden
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.tree import Entry, Items, Node, Plain, Scalar, Table, plain
from gnflow.workspace import Workspace


def additions(path: Path, sets: Sequence[str]) -> dict[str, Plain]:
    """The values that are not in the file or in what it extends. A list is replaced by `extends`, so it is whole.

    Raises SpecProblems.
    """
    problems: list[Problem] = []
    workspace = Workspace.find(path)
    with within(workspace):
        tree, _ = assembled(path, workspace.root, problems)
        tree = overridden(tree, sets, problems)
    if problems or not isinstance(tree, Table):
        raise SpecProblems(problems)
    return {key: plain(kept) for key, entry in tree.entries.items() if (kept := _added(entry.node))}


def _added(node: Node) -> Node | None:
    match node:
        case Scalar(origin=origin):
            return None if origin.kind == "file" else node
        case Table(entries=entries):
            inner = {key: (entry.origin, _added(entry.node)) for key, entry in entries.items()}
            kept = {key: Entry(origin, added) for key, (origin, added) in inner.items() if added}
            return Table(kept, node.origin) if kept or node.origin.kind != "file" else None
        case Items(items=items):
            return node if node.origin.kind != "file" or any(map(_added, items)) else None
        case _:
            return None
