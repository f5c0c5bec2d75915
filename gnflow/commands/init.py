"""`gnflow init`: make the current folder a project: a Git and DVC repository that ignores the files of runs."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gnflow.errors import EnvironmentProblem
from gnflow.train import disk
from gnflow.workspace import Workspace, find_ancestor

IGNORED = ("/runs/", "/data/", "/mlflow/", "/.gnflow/")
QUIET = ("core.analytics", "core.check_update")


def make_project() -> int:
    """Make the parts of a project that are missing, and print them. Existing files stay as they are.

    Raises EnvironmentProblem if git or DVC is missing, and DiskProblem.
    """
    workspace = Workspace.find(Path.cwd())
    root = workspace.root
    print(f"the project: {root}")
    print(f"git: {_make_git_repository(root)}")
    print(f".gitignore: {_ignore_files(root)}")
    print(f"dvc: {_make_dvc_repository(root)}")
    return 0


def _make_git_repository(root: Path) -> str:
    if there := find_ancestor(root, ".git"):
        return f"{there} is a repository already"
    _call(root, ("git", "init", "--quiet"), "install git, then run `gnflow init` again")
    return "initialized a repository"


def _ignore_files(root: Path) -> str:
    """Ignore runs, prepared data, the tracking store and the cache in Git; DVC keeps the important parts of them."""
    file = root / ".gitignore"
    with disk.guard_write(file):
        before = file.read_text() if file.exists() else ""
    missing = [name for name in IGNORED if not {name, name.strip("/"), name[1:], name[:-1]} & set(before.splitlines())]
    if not missing:
        return "names the files of runs already"
    disk.write(
        file, (before + ("" if not before or before.endswith("\n") else "\n") + "\n".join(missing) + "\n").encode()
    )
    return f"added {', '.join(missing)}"


def _make_dvc_repository(root: Path) -> str:
    if there := find_ancestor(root, ".dvc"):
        return f"{there} is a repository already"
    if importlib.util.find_spec("dvc") is None:
        raise EnvironmentProblem("dvc is not installed: pip install 'gnflow[dvc]', then run `gnflow init` again")
    dvc, advice = (sys.executable, "-m", "dvc"), "solve this problem, then run `gnflow init` again"
    below = () if (root / ".git").exists() else ("--subdir",)
    _call(root, (*dvc, "init", "--quiet", *below), advice)
    for setting in QUIET:
        _call(root, (*dvc, "config", setting, "false"), advice)
    return "initialized a repository, without usage reports"


def _call(root: Path, command: Sequence[str], advice: str) -> None:
    shown = " ".join(command).replace(f"{sys.executable} -m ", "")
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env={**os.environ, "DVC_NO_ANALYTICS": "true"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise EnvironmentProblem(f"`{shown}` cannot be called: {error.strerror or error}; {advice}") from error
    if done.returncode:
        raise EnvironmentProblem(f"`{shown}` failed in {root}; {advice}\n{(done.stderr or done.stdout).strip()}")
