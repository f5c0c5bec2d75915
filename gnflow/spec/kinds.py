"""Which kinds a project has: those built in, those of its `pyproject.toml`, and those of what is installed.

A kind is known by its name. The module that has its class is imported when a spec uses the kind.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from gnflow.errors import EnvironmentProblem
from gnflow.spec.base import Kind, kind_of
from gnflow.spec.classes import group_of
from gnflow.spec.imports import module
from gnflow.spec.named import ONE, TARGET, Named, built_in_kinds
from gnflow.workspace import Workspace


class Kinds:
    """The kinds of one project, by group. What is installed is looked at only when a name is not found before."""

    def __init__(self, project: Path | None, tried: tuple[Named, ...] = ()) -> None:
        own = [*(_rows(project) if project else ()), *tried]
        self._near = {group: built_in_kinds(group) for group in ONE}
        for named in own:
            _add(self._near[named.group], named)

    def find(self, group: str, kind: str) -> Named | None:
        """Return the kind of this name in a group, or None."""
        return self._near[group].get(kind) or self.all(group).get(kind)

    def all(self, group: str) -> Mapping[str, Named]:
        """Return every kind of a group, the built-in ones first."""
        return self._every[group]

    @cached_property
    def _every(self) -> dict[str, dict[str, Named]]:
        every = {group: dict(kinds) for group, kinds in self._near.items()}
        for group in ONE:
            for point in entry_points(group=f"gnflow.{group}"):
                _add(every[group], _installed(group, point))
        return every


_TRIED: list[Named] = []
_current: ContextVar[Kinds | None] = ContextVar("kinds", default=None)


def current() -> Kinds:
    """The kinds of the project that is being read; outside of any, those that are built in or installed."""
    return _current.get() or _known(None, 0, tuple(_TRIED))


@contextmanager
def within(workspace: Workspace) -> Iterator[Kinds]:
    """Inside, the kinds are those of this project. Raises EnvironmentProblem for a table that cannot be used."""
    project = _project_file(workspace)
    known = _known(project, project.stat().st_mtime_ns if project else 0, tuple(_TRIED))
    token = _current.set(known)
    try:
        yield known
    finally:
        _current.reset(token)


def try_out(file: Path) -> None:
    """Adds the kinds of a file for as long as this process lives. Raises EnvironmentProblem where it has none."""
    who = f"--plugin {file}"
    if not file.is_file() or file.suffix != ".py":
        raise EnvironmentProblem(f"{who}: expected a Python file (.py)")
    loaded = module(file.stem, file.resolve().parent, who)
    found = []
    for name, member in vars(loaded).items():
        if isinstance(member, type) and issubclass(member, Kind) and member.__module__ == loaded.__name__:
            group = group_of(member)
            kind = kind_of(member)
            if group and kind:
                found.append(Named(group, kind, f"{file.stem}:{name}", str(file), file.resolve().parent))
    if not found:
        raise EnvironmentProblem(f"{who}: no class in it is a kind; derive one from the classes of gnflow.plugin")
    _TRIED.extend(found)


@cache
def _known(project: Path | None, changed: int, tried: tuple[Named, ...]) -> Kinds:
    return Kinds(project, tried)


def _project_file(workspace: Workspace) -> Path | None:
    """`pyproject.toml` at the root; around a folder that no mark makes a project, the nearest one above."""
    folders = (workspace.root,) if workspace.is_project else (workspace.root, *workspace.root.parents)
    return next((file for folder in folders if (file := folder / "pyproject.toml").is_file()), None)


def _rows(project: Path) -> Iterator[Named]:
    try:
        text = project.read_text(encoding="utf-8")
        tables = tomllib.loads(text).get("tool", {}).get("gnflow", {})
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{project} cannot be read: {error}") from None
    for group, rows in tables.items() if isinstance(tables, dict) else ():
        if group not in ONE or not isinstance(rows, dict):
            raise EnvironmentProblem(
                f"{project}: [tool.gnflow.{group}] is none of the tables that gnflow reads: {', '.join(ONE)}"
            )
        for kind, target in rows.items():
            place = f"{project.name}:{_line(text, group, kind)}"
            if not isinstance(target, str) or not TARGET.fullmatch(target):
                raise EnvironmentProblem(f'{place}: expected `{kind} = "module:class"`, got `{target}`')
            yield Named(group, kind, target, place, project.parent)


def _line(text: str, group: str, kind: str) -> int:
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("["):
            inside = re.fullmatch(rf"\s*\[\s*tool\.gnflow\.{group}\s*\].*", line) is not None
        elif inside and re.match(rf"\s*[\"']?{re.escape(kind)}[\"']?\s*=", line):
            return number
    return 1


def _installed(group: str, point: EntryPoint) -> Named:
    owner = f"{point.dist.name} {point.dist.version}" if point.dist else ""
    return Named(group, point.name, point.value, f"entry point of {owner}", None, owner)


def _add(kinds: dict[str, Named], named: Named) -> None:
    if other := kinds.get(named.kind):
        raise EnvironmentProblem(
            f"the {ONE[named.group]} `{named.kind}` is named twice: by {_where(other)} and by {_where(named)}; "
            "rename one of them"
        )
    kinds[named.kind] = named


def _where(named: Named) -> str:
    return f"{named.place} ({named.target})"
