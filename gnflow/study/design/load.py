"""Load a study file, and check every value of every arm like those of a spec."""

import re
from collections.abc import Iterator
from pathlib import Path

from gnflow.spec.extends import read_mapping
from gnflow.spec.kinds import use_kinds_of
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.recognition import A_STUDY, refuse_other
from gnflow.spec.study import Study
from gnflow.spec.suggest import find_nearest
from gnflow.spec.tree import Entry, Items, Node, Scalar, Table
from gnflow.spec.validate import validate_as
from gnflow.study.design.arms import Reader
from gnflow.study.design.design import Design
from gnflow.study.design.overrides import find_entries, find_node
from gnflow.study.design.widen import Widened, read_widened
from gnflow.workspace import STUDY, Workspace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


def load(path: Path, widened: Widened | None = None) -> Design:
    """Load the study in a folder or a file, with what is recorded as added to it or with `widened` in place of that.

    Raises SpecProblems, a SpecError that holds every problem found.
    """
    if path.is_dir():
        refuse_other(path, A_STUDY)
        path = path / STUDY
    workspace = Workspace.find(path)
    with use_kinds_of(workspace):
        return _load(path, workspace, widened)


def _load(path: Path, workspace: Workspace, widened: Widened | None) -> Design:
    problems: list[Problem] = []
    try:
        tree = _expand(read_mapping(path, problems, A_STUDY))
    except SpecProblems as fatal:
        raise SpecProblems([*problems, *fatal.problems]) from None
    study = validate_as(Study, tree, problems)
    if study is None:
        raise SpecProblems(problems)
    problems += _find_wrong_names(study, tree, path)
    if widened is None:
        widened = read_widened(path.resolve().parent, problems)
    reader = Reader(study, tree, path.resolve(), workspace, problems, widened)
    arms = [reader.work_out_arm(name, scale) for scale in study.scales or (None,) for name in study.arms]
    if problems:
        raise SpecProblems(problems)
    return Design(study, path.resolve(), workspace, tuple(arm for arm in arms if arm))


def _expand(tree: Table) -> Table:
    """Expand short forms: `muon: muon.yaml` to `muon: {spec: muon.yaml}`, and a list in a space to `{values: [..]}`."""
    for name, entry in find_entries(tree, "arms").items():
        if isinstance(entry.node, Scalar) and isinstance(entry.node.value, str):
            tree = _replace_node(tree, ("arms", name), Table({"spec": entry}, entry.node.origin))
    for path in (("tuning", "space"), *(("arms", name, "tuning", "space") for name in find_entries(tree, "arms"))):
        for key, entry in find_entries(tree, *path).items():
            if isinstance(entry.node, Items):
                tree = _replace_node(tree, (*path, key), Table({"values": entry}, entry.node.origin))
    return tree


def _replace_node(tree: Table, path: tuple[str, ...], node: Node) -> Table:
    key, *rest = path
    entry = tree.entries[key]
    if rest:
        assert isinstance(entry.node, Table)
        node = _replace_node(entry.node, tuple(rest), node)
    return tree.replace_entry(key, Entry(entry.origin, node))


def _find_wrong_names(study: Study, tree: Table, path: Path) -> Iterator[Problem]:
    folder = path.resolve().parent.name
    if study.name != folder:
        yield Problem(
            find_node(tree, "name").origin, f"expected the name of the folder of the study, `{folder}`", "name"
        )
    for name, entry in find_entries(tree, "arms").items():
        if not _NAME.fullmatch(name):
            rule = "at most 60 letters, digits, `_` and `-`, a letter or digit first"
            yield Problem(entry.origin, f"`{name}` cannot name an arm; expected {rule}", f"arms.{name}")
    if study.reference is not None and study.reference not in study.arms:
        origin, near = find_node(tree, "reference").origin, find_nearest(study.reference, study.arms)
        yield Problem(origin, f"there is no arm `{study.reference}`", "reference", near)
