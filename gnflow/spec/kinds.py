"""The kinds of a project: built-in kinds, those of its `pyproject.toml`, and those of installed distributions.

A kind is known by its name. The module of its class is imported when a spec uses the kind.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from gnflow.errors import EnvironmentProblem
from gnflow.spec.base import Kind, find_kind, join_with_or
from gnflow.spec.classes import find_group
from gnflow.spec.imports import load_module
from gnflow.spec.named import ONE, TARGET, Named, list_built_in
from gnflow.workspace import Workspace, read_in


class Kinds:
    """The kinds of one project, by group. Installed distributions are searched last, and only if needed."""

    def __init__(self, project: Path | None, tried: tuple[Named, ...] = ()) -> None:
        own = [*(_read_rows(project) if project else ()), *tried]
        self._near = {group: list_built_in(group) for group in ONE}
        for named in own:
            _add(self._near[named.group], named)

    def find(self, group: str, kind: str) -> Named | None:
        """Return the kind of this name in a group, or None."""
        near = self._near[group].get(kind)
        return self.list_group(group).get(kind) if near is None or near.gives_way else near

    def list_group(self, group: str) -> Mapping[str, Named]:
        """Return every kind of a group, the built-in ones first."""
        return self._every[group]

    @cached_property
    def _every(self) -> dict[str, dict[str, Named]]:
        every = {group: dict(kinds) for group, kinds in self._near.items()}
        for group in ONE:
            for point in entry_points(group=f"gnflow.{group}"):
                _add(every[group], _name_installed(group, point))
        return every


_TRIED: list[Named] = []
_current: ContextVar[Kinds | None] = ContextVar("kinds", default=None)


def get_current() -> Kinds:
    """Return the kinds of the project that is being read; outside of any project, the built-in and installed kinds."""
    return _current.get() or _read_kinds(None, 0, tuple(_TRIED))


@contextmanager
def use_kinds_of(workspace: Workspace) -> Iterator[Kinds]:
    """Use the kinds of this project inside the context. Raises EnvironmentProblem for a table that cannot be used."""
    project = _find_project_file(workspace)
    known = _read_kinds(project, project.stat().st_mtime_ns if project else 0, tuple(_TRIED))
    token = _current.set(known)
    try:
        with read_in(workspace):
            yield known
    finally:
        _current.reset(token)


def try_out(file: Path) -> None:
    """Add the kinds of a file to this process. Raises EnvironmentProblem if the file has none."""
    who = f"--plugin {file}"
    if not file.is_file() or file.suffix != ".py":
        raise EnvironmentProblem(f"{who}: expected a Python file (.py)")
    loaded = load_module(file.stem, file.resolve().parent, who)
    found = []
    for name, member in vars(loaded).items():
        if isinstance(member, type) and issubclass(member, Kind) and member.__module__ == loaded.__name__:
            group = find_group(member)
            kind = find_kind(member)
            if group and kind:
                found.append(Named(group, kind, f"{file.stem}:{name}", str(file), file.resolve().parent))
    if not found:
        raise EnvironmentProblem(f"{who}: no class in it is a kind; derive one from the classes of gnflow.plugin")
    _TRIED.extend(found)


@cache
def _read_kinds(project: Path | None, changed: int, tried: tuple[Named, ...]) -> Kinds:
    return Kinds(project, tried)


def _find_project_file(workspace: Workspace) -> Path | None:
    """Return the `pyproject.toml` at the root; if no mark shows where the root is, the nearest one above."""
    folders = (workspace.root,) if workspace.is_project else (workspace.root, *workspace.root.parents)
    return next((file for folder in folders if (file := folder / "pyproject.toml").is_file()), None)


def _read_rows(project: Path) -> Iterator[Named]:
    try:
        text = project.read_text(encoding="utf-8")
        tables = tomllib.loads(text).get("tool", {}).get("gnflow", {})
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{project} cannot be read: {error}") from None
    for group, rows in tables.items() if isinstance(tables, dict) else ():
        if group not in ONE or not isinstance(rows, dict):
            raise EnvironmentProblem(
                f"{project}: [tool.gnflow.{group}] is not a table that gnflow reads; expected {join_with_or(list(ONE))}"
            )
        for kind, target in rows.items():
            place = f"{project.name}:{_find_line(text, group, kind)}"
            if not isinstance(target, str) or not TARGET.fullmatch(target):
                raise EnvironmentProblem(f'{place}: expected `{kind} = "module:class"`, got `{target}`')
            yield Named(group, kind, target, place, project.parent)


def _find_line(text: str, group: str, kind: str) -> int:
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("["):
            inside = re.fullmatch(rf"\s*\[\s*tool\.gnflow\.{group}\s*\].*", line) is not None
        elif inside and re.match(rf"\s*[\"']?{re.escape(kind)}[\"']?\s*=", line):
            return number
    return 1


def _name_installed(group: str, point: EntryPoint) -> Named:
    owner = f"{point.dist.name} {point.dist.version}" if point.dist else ""
    return Named(group, point.name, point.value, f"entry point of {owner}", None, owner)


def _add(kinds: dict[str, Named], named: Named) -> None:
    other = kinds.get(named.kind)
    if other is not None and not other.gives_way:
        raise EnvironmentProblem(
            f"the {ONE[named.group]} `{named.kind}` is named twice: by {_describe(other)} and by {_describe(named)}; "
            "rename one of them"
        )
    kinds[named.kind] = named if other is None else replace(named, replaces=other.target)


def _describe(named: Named) -> str:
    return f"{named.place} ({named.target})"
