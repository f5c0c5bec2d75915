"""`extends:`: a file on top of others."""

from functools import reduce
from pathlib import Path
from typing import NamedTuple

from gnflow.spec.lookalikes import missing_space, named
from gnflow.spec.merge import merged
from gnflow.spec.problems import Problem, SpecProblems, shown
from gnflow.spec.source import BYTES, parse, read
from gnflow.spec.suggest import nearest
from gnflow.spec.tree import Broken, Items, Node, Origin, Scalar, Source, Table
from gnflow.workspace import Workspace

FILES, GENERATIONS = 32, 8


class Assembled(NamedTuple):
    """A tree, and what it was read from."""

    tree: Node | None
    """None when the file could not be read."""
    complete: bool
    """False when it, or one that it extends, could not be read."""
    files: tuple[Path, ...]


def assembled(path: Path, root: Path, problems: list[Problem]) -> tuple[Node, bool]:
    """The tree of a file on top of all that it extends; false when one of those could not be read.

    Raises SpecProblems when there is no such file, or nothing in it can be understood.
    """
    assembly = _Assembly(root, problems)
    return assembly.tree(path, ()), assembly.complete


def referred(named: Node, path: Path, root: Path, problems: list[Problem]) -> Assembled:
    """The tree of the spec that the value `named` of the file `path` names; what is wrong with it stands there."""
    assembly = _Assembly(root, problems)
    tree = assembly.base(named, path, ())
    return Assembled(tree, assembly.complete, assembly.files)


def mapping(path: Path, problems: list[Problem]) -> Table:
    """The tree of one file, which must be a mapping. Raises SpecProblems when nothing in it can be understood."""
    node = parse(_opened(path, shown(path)), problems)
    if isinstance(node, Broken):
        raise SpecProblems([])
    if not isinstance(node, Table):
        got = "a list" if isinstance(node, Items) else "one value"
        problem = Problem(node.origin, f"expected a mapping of keys to values, got {got}")
        raise SpecProblems([missing_space(node.origin) or named(problem)])
    return node


class _Assembly:
    """Reads each file once, however often it is extended."""

    def __init__(self, root: Path, problems: list[Problem]):
        self._root, self._problems = root, problems
        self._known: dict[Path, Node] = {}
        self._size = 0
        self.complete = True

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        return tuple(self._known)

    def tree(self, path: Path, below: tuple[Path, ...]) -> Node:
        """The tree of `path`, which the files `below` extend, the outermost first."""
        file = path.resolve()
        if file not in self._known:
            self._known[file] = self._read(path, (*below, file))
        return self._known[file]

    def _read(self, path: Path, below: tuple[Path, ...]) -> Node:
        node = mapping(path, self._problems)
        self._size += len(node.origin.source.text)
        own = Table({key: entry for key, entry in node.entries.items() if key != "extends"}, node.origin)
        extends = node.entries.get("extends")
        bases = extends.node.items if extends and isinstance(extends.node, Items) else [extends.node] if extends else []
        return reduce(merged, [*(tree for base in bases if (tree := self.base(base, path, below))), own])

    def base(self, named: Node, path: Path, below: tuple[Path, ...]) -> Node | None:
        """The tree of the file that `named` names beside `path`; None, with problems, when it cannot be read."""
        try:
            if not isinstance(named, Scalar) or not isinstance(named.value, str) or not named.value:
                raise _problem(named.origin, "expected the path of a spec, or a list of paths")
            base = path.parent / named.value
            file = _resolved(base, named)
            if not file.is_relative_to(self._root):
                raise _problem(
                    named.origin, f"`{named.value}` is outside the project, {self._root}{_unmarked(self._root)}"
                )
            if file in below:
                circle = " -> ".join(f"`{each.name}`" for each in (*below[below.index(file) :], file))
                raise _problem(named.origin, f"a file cannot extend itself: {circle}")
            if len(below) > GENERATIONS or len(self._known) > FILES:
                raise _problem(named.origin, f"more than {GENERATIONS} files deep, or more than {FILES} files")
            if self._size > BYTES:
                raise _problem(named.origin, f"more than {BYTES:,} characters in the files before this one")
            if not file.is_file():
                raise _problem(named.origin, f"no such file: `{shown(base)}`", _sibling(base))
            return self.tree(base, below)
        except SpecProblems as found:
            self.complete = False
            self._problems += found.problems
            return None


def _opened(path: Path, name: str) -> Source:
    origin = Origin(Source(name))
    try:
        return read(path, name)
    except FileNotFoundError:
        raise _problem(origin, "no such file", _sibling(path)) from None
    except IsADirectoryError:
        raise _problem(origin, "a directory; name the spec in it") from None
    except (OSError, ValueError) as error:
        raise _problem(origin, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _resolved(path: Path, named: Scalar) -> Path:
    try:
        path.is_file()  # raises for a name that no file can have
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        raise _problem(named.origin, f"`{named.raw}` is not a path") from None


def _sibling(path: Path) -> str | None:
    names = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    found = nearest(path.name, names)
    return shown(path.with_name(found)) if found else None


def _problem(origin: Origin, message: str, suggestion: str | None = None) -> SpecProblems:
    return SpecProblems([Problem(origin, message, suggestion=suggestion)])


def _unmarked(root: Path) -> str:
    """What to do where there is no project, and the folder of the file is taken for one."""
    return "" if Workspace(root).is_project else "; run `gnflow init` in the folder that is to be the project"
