"""List the plug-ins that an experiment uses, with the current state of their files."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gnflow.spec import classes
from gnflow.spec.base import Kind
from gnflow.spec.experiment import Experiment
from gnflow.spec.imports import find_file
from gnflow.spec.named import Named
from gnflow.spec.origins import walk_values


class Plugin(NamedTuple):
    """A kind that is defined outside gnflow."""

    group: str
    kind: str
    file: str
    """The file that defines the class."""
    version: str | None
    """Name and version of the distribution that installed it; None for a file of the project."""
    sha256: str
    """Digest of this file and the file of the factory, or of all Python files of a package."""
    replaces: str | None = None
    """`module:class` of the built-in kind in whose place it was used; None if there is none of this name."""


def list_plugins(experiment: Experiment) -> list[Plugin]:
    """List every plug-in that the experiment names, each once."""
    used = {type(value): value for _, value in walk_values(experiment) if isinstance(value, Kind)}
    found = [_describe_plugin(kind, named) for model, kind in used.items() if (named := classes.find_origin(model))]
    return list(dict.fromkeys(found))


def _describe_plugin(kind: Kind, named: Named) -> Plugin:
    modules = [name.partition(":")[0] for name in (named.target, kind.factory)]
    files = sorted({file for name in modules for file in _list_files(name)})
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    home = find_file(sys.modules[modules[0]])
    return Plugin(
        named.group,
        named.kind,
        str(home or modules[0]),
        named.distribution or None,
        digest.hexdigest(),
        named.replaces or None,
    )


def _list_files(name: str) -> Iterator[Path]:
    """Return the file of a module; if it is in a package, all files of the package."""
    top = sys.modules.get(name.partition(".")[0])
    file = find_file(top) if top else None
    if file is not None:
        yield from file.parent.rglob("*.py") if file.name == "__init__.py" else (file,)
