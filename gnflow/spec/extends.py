"""Read a spec file and the files that it extends."""

import os
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from gnflow.spec.lookalikes import find_missing_space, name_lookalike
from gnflow.spec.merge import merge
from gnflow.spec.problems import Problem, SpecProblems, shorten_path
from gnflow.spec.recognition import A_SPEC, refuse_other
from gnflow.spec.source import BYTES, parse, read
from gnflow.spec.suggest import find_nearest
from gnflow.spec.tree import Broken, Items, Node, Origin, Scalar, Source, Table
from gnflow.workspace import Workspace

FILES, GENERATIONS = 32, 8


class Assembled(NamedTuple):
    """A tree and the files from which it was read."""

    tree: Node | None
    """None when the file could not be read."""
    complete: bool
    """False if the file or a base of it could not be read."""
    files: tuple[Path, ...]


def assemble(path: Path, root: Path, problems: list[Problem]) -> tuple[Node, bool]:
    """Return the tree of a file merged over its bases, and whether all bases could be read.

    Raises SpecProblems if the file does not exist or nothing in it can be understood.
    """
    assembly = _Assembly(root, problems)
    return assembly.read_tree(path, ()), assembly.complete


def read_referred(named: Node, path: Path, root: Path, problems: list[Problem]) -> Assembled:
    """Return the tree of the spec that the value `named` in the file `path` refers to. Errors point at this value."""
    assembly = _Assembly(root, problems)
    tree = assembly.read_base(named, path, ())
    return Assembled(tree, assembly.complete, assembly.files)


def read_mapping(path: Path, problems: list[Problem], wanted: str | None = None) -> Table:
    """Return the tree of one file, which must be a mapping. Raises SpecProblems if nothing in it can be understood.

    If it is recognised as anything but `wanted`, such as a spec, this is the only problem.
    """
    found: list[Problem] = []
    try:
        node = _parse_mapping(path, found)
    except SpecProblems:
        if wanted:
            refuse_other(path, wanted)
        problems += found
        raise
    if wanted:
        refuse_other(path, wanted, node.entries)
    problems += found
    return node


def _parse_mapping(path: Path, problems: list[Problem]) -> Table:
    node = parse(_read_source(path, shorten_path(path)), problems)
    if isinstance(node, Broken):
        raise SpecProblems([])
    if not isinstance(node, Table):
        got = "a list" if isinstance(node, Items) else "one value"
        problem = Problem(node.origin, f"expected a mapping of keys to values, got {got}")
        raise SpecProblems([find_missing_space(node.origin) or name_lookalike(problem)])
    return node


class _Assembly:
    """A reader of spec files that reads each file once, however often it is extended."""

    def __init__(self, root: Path, problems: list[Problem]):
        self._root, self._problems = root, problems
        self._known: dict[Path, Node] = {}
        self._size = 0
        self.complete = True

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        return tuple(self._known)

    def read_tree(self, path: Path, below: tuple[Path, ...]) -> Node:
        """Return the tree of `path`. The files `below` extend it, the outermost first."""
        file = Path(os.path.realpath(path))
        if file not in self._known:
            self._known[file] = self._read(path, (*below, file))
        return self._known[file]

    def _read(self, path: Path, below: tuple[Path, ...]) -> Node:
        node = read_mapping(path, self._problems, A_SPEC)
        self._size += len(node.origin.source.text)
        own = Table({key: entry for key, entry in node.entries.items() if key != "extends"}, node.origin)
        extends = node.entries.get("extends")
        bases = extends.node.items if extends and isinstance(extends.node, Items) else [extends.node] if extends else []
        return reduce(merge, [*(tree for base in bases if (tree := self.read_base(base, path, below))), own])

    def read_base(self, named: Node, path: Path, below: tuple[Path, ...]) -> Node | None:
        """Return the tree of the base that `named` in `path` names; None, with problems, if it cannot be read."""
        try:
            if not isinstance(named, Scalar) or not isinstance(named.value, str) or not named.value:
                raise _make_problem(named.origin, "expected the path of a spec, or a list of paths")
            base = path.parent / named.value
            file = _resolve(base, named)
            if not file.is_relative_to(self._root):
                raise _make_problem(
                    named.origin, f"`{named.value}` is outside the project, {self._root}{_advise_init(self._root)}"
                )
            if file in below:
                circle = " -> ".join(f"`{each.name}`" for each in (*below[below.index(file) :], file))
                raise _make_problem(named.origin, f"a file cannot extend itself: {circle}")
            if len(below) > GENERATIONS or len(self._known) > FILES:
                raise _make_problem(named.origin, f"a spec may extend at most {GENERATIONS} levels and {FILES} files")
            if self._size > BYTES:
                raise _make_problem(named.origin, f"the files before this one have more than {BYTES:,} characters")
            if not file.is_file():
                raise _make_problem(named.origin, f"no such file: `{shorten_path(base)}`", _suggest_sibling(base))
            return self.read_tree(base, below)
        except SpecProblems as found:
            self.complete = False
            self._problems += found.problems
            return None


def _read_source(path: Path, name: str) -> Source:
    origin = Origin(Source(name))
    try:
        return read(path, name)
    except FileNotFoundError:
        if path.is_symlink():
            aim = f"this is a symbolic link to `{path.readlink()}`, and there is no such file"
            raise _make_problem(origin, aim) from None
        raise _make_problem(origin, "no such file", _suggest_sibling(path)) from None
    except IsADirectoryError:
        raise _make_problem(origin, "this is a directory; give the path of a spec in it") from None
    except (OSError, ValueError) as error:
        raise _make_problem(origin, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _resolve(path: Path, named: Scalar) -> Path:
    try:
        path.is_file()  # raises for a name that no file can have
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        raise _make_problem(named.origin, f"`{named.raw}` is not a path") from None


def _suggest_sibling(path: Path) -> str | None:
    names = [file.name for file in path.parent.glob("*.y*ml") if file.is_file()] if path.parent.is_dir() else []
    found = find_nearest(path.name, names)
    return shorten_path(path.with_name(found)) if found else None


def _make_problem(origin: Origin, message: str, suggestion: str | None = None) -> SpecProblems:
    return SpecProblems([Problem(origin, message, suggestion=suggestion)])


def _advise_init(root: Path) -> str:
    """Return advice for a folder that is used as the project only because no project was found."""
    return "" if Workspace(root).is_project else "; run `gnflow init` in the folder that is to be the project"
