"""Find out whether Inductor can build code for the CPU on this machine, by building something tiny in the same way."""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gnflow.compiler import graphs
from gnflow.workspace import Workspace

CACHE = "TORCHINDUCTOR_CACHE_DIR"
COMPILERS = ("clang++", "g++", "c++") if sys.platform == "darwin" else ("g++", "clang++", "c++")
SOURCE = '#include <Python.h>\n#include <omp.h>\nextern "C" int threads() { return omp_get_max_threads(); }\n'
SECONDS = 60


class Kept(NamedTuple):
    """The directory that compiled graphs are kept in. With None torch keeps them among the temporary files."""

    directory: Path | None
    problem: str = ""
    """The reason why graphs are not kept in the intended directory; empty if they are."""


def find_cache(workspace: Workspace) -> Kept:
    """Return the first directory that can be written to, of those that may be meant.

    That is the one that the environment names; or the project's own, if it is there; or the one that all projects of
    the user share, and else the project's.
    """
    own, named = workspace.cache / "inductor", os.environ.get(CACHE)
    shared = graphs.find_shared()
    problem = ""
    for directory in [Path(named)] if named else [own] if own.is_dir() or shared is None else [shared, own]:
        try:
            with tempfile.TemporaryDirectory(prefix=graphs.TRIED, dir=find_nearest(directory.absolute())):
                return Kept(directory)
        except OSError as error:
            problem = f"compiled graphs cannot be kept in {directory}: {error.strerror or error}"
    return Kept(None, problem)


def settle(workspace: Workspace) -> None:
    """Tell torch where to keep compiled graphs. Call it before `torch._dynamo` is imported, which fixes a place."""
    kept = find_cache(workspace)
    if kept.directory:
        os.environ[CACHE] = str(kept.directory)
        graphs.remove_torn(kept.directory)
    else:
        _warn(f"{kept.problem}; they go to the temporary files")
        os.environ.pop(CACHE, None)


@lru_cache
def _warn(message: str) -> None:
    """Give each warning once a process."""
    warnings.warn(message, stacklevel=1)


def find_compiler() -> str:
    """Return the C++ compiler for Inductor: `CXX`, or else the first one that is found."""
    return os.environ.get("CXX") or next((name for name in COMPILERS if shutil.which(name)), COMPILERS[0])


def find_problem(device: str, kept: Path | None = None) -> str | None:
    """Return in one line what keeps regions from being compiled for this device and kept there, or None."""
    if device != "cpu" or sys.platform == "win32":
        return None
    directory = kept or Path(os.environ.get(CACHE) or tempfile.gettempdir())
    return _try_build(find_compiler(), find_nearest(directory.absolute()), os.environ.get("PATH", ""))


@lru_cache
def _try_build(command: str, directory: Path, path: str) -> str | None:
    """Build once a process for each compiler, directory and search path; nothing is left in the directory."""
    if not shutil.which(command):
        if os.environ.get("CXX"):
            return f"CXX names the C++ compiler `{command}`, and there is no such program"
        return f"there is no C++ compiler ({', '.join(COMPILERS)})"
    try:
        with tempfile.TemporaryDirectory(prefix=graphs.TRIED, dir=directory) as place:
            source, library = Path(place) / "tiny.cpp", Path(place) / "tiny.so"
            source.write_text(SOURCE)
            flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-fopenmp", f"-I{sysconfig.get_path('include')}"]
            done = subprocess.run(
                [command, *flags, str(source), "-o", str(library)],
                capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False,
            )  # fmt: skip
            if done.returncode:
                reason = find_first_error(done.stderr) or f"exit code {done.returncode}"
                return f"the C++ compiler `{command}` fails: {reason}"
            ctypes.CDLL(str(library)).threads()
    except subprocess.TimeoutExpired:
        return f"the C++ compiler `{command}` needs more than {SECONDS} s for a line of code"
    except OSError as error:
        return f"code cannot be built in {directory}: {error.strerror or error}"
    except AttributeError:
        return f"the C++ compiler `{command}` builds libraries that are empty"
    return None


def find_first_error(said: str) -> str:
    """Return the line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "")


def find_nearest(path: Path) -> Path:
    """Return the path itself if it exists, or else its closest ancestor that does."""
    return next(candidate for candidate in (path, *path.parents) if os.path.lexists(candidate))
