"""Import modules of plug-ins: first those beside the project's `pyproject.toml`, then installed ones."""

import importlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from gnflow.errors import EnvironmentProblem

_NOT_THEIRS = ("<", str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "purelib")))
"""Prefixes of the paths of files whose lines do not help the author of a plug-in."""


def load_module(name: str, folder: Path | None, who: str) -> ModuleType:
    """Import the module `name`, from `folder` if it is there. `who` begins the sentence of an error.

    Raises EnvironmentProblem if the module does not exist or fails while it is imported.
    """
    top = name.partition(".")[0]
    if folder is not None:
        _enter(folder)
    file = _find_source(top, folder) if folder else None
    try:
        if file is not None:
            _require_free(top, file, who)
            _place(top, file)
        return importlib.import_module(name)
    except EnvironmentProblem:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            places = f"beside {folder / 'pyproject.toml'} or among the installed packages" if folder else "installed"
            raise EnvironmentProblem(f"{who}: there is no module `{name}` {places}") from None
        raise EnvironmentProblem(f"{who}: {file or name} cannot be imported: {error}") from None
    except SyntaxError as error:
        raise EnvironmentProblem(f"{who}: {error.filename}:{error.lineno}: {error.msg}") from None
    except Exception as error:
        raise EnvironmentProblem(f"{who}: {file or name} cannot be imported: {describe_error(error)}") from None


def describe_error(error: BaseException) -> str:
    """Return an exception as one line, with the last line of the plug-in in its traceback."""
    frames, place = error.__traceback__, ""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith(_NOT_THEIRS):
            place = f" ({Path(file).name}:{frames.tb_lineno})"
        frames = frames.tb_next
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def find_file(loaded: ModuleType) -> Path | None:
    """Return the file that a module was read from."""
    return Path(loaded.__file__).resolve() if loaded.__file__ else None


def _find_source(top: str, folder: Path) -> Path | None:
    for path in (folder / f"{top}.py", folder / top / "__init__.py"):
        if path.is_file():
            return path.resolve()
    return None


def _require_free(top: str, file: Path, who: str) -> None:
    if top in sys.stdlib_module_names or top in ("gnflow", "torch", "numpy", "pydantic"):
        raise EnvironmentProblem(f"{who}: {file} has the name of a module that gnflow needs itself; rename it")


_FOLDERS: list[Path] = []
"""The folder of the project whose plug-ins were imported last. It is in the search path."""
_PLACED: set[str] = set()
"""The top-level modules that were read from `_FOLDERS`."""


def _enter(folder: Path) -> None:
    """Search modules in `folder`, and forget those of another project, whose modules may have the same names.

    The folder is last in the search path, so that a plug-in finds the modules beside it and hides no others.
    """
    if [folder] == _FOLDERS:
        return
    for top in tuple(_PLACED):
        _forget(top)
    for old in _FOLDERS:
        if sys.path[-1:] == [str(old)]:
            sys.path.pop()
    _FOLDERS[:] = [folder]
    sys.path.append(str(folder))


def _place(top: str, file: Path) -> None:
    """Load a top-level module from `file`, unless it was loaded from there already."""
    known = sys.modules.get(top)
    if known is not None and find_file(known) == file:
        return
    _forget(top)
    _PLACED.add(top)
    places = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(top, file, submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[top] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        _forget(top)
        raise


def _forget(top: str) -> None:
    """Remove a top-level module and its submodules from `sys.modules`."""
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]
    _PLACED.discard(top)
    importlib.invalidate_caches()
