"""What `run` and `doctor` say of the compiler is found by compiling."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from gnflow.commands.doctor import run_checks
from gnflow.compiler import toolchain
from gnflow.compiler.regions import Compiler
from gnflow.errors import EnvironmentProblem
from gnflow.workspace import Workspace

GXX = shutil.which("g++")
pytestmark = pytest.mark.skipif(GXX is None, reason="no g++ to test with")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(toolchain.CACHE, raising=False)
    toolchain._warn.cache_clear()


def only(folder: Path, *names: str) -> str:
    """A search path with a compiler under these names alone, and what it calls itself."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(str(GXX))
    for name in ("as", "ld"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return str(folder)


def said(workspace: Workspace) -> str:
    """What doctor says of the compiler."""
    [found] = [finding for finding in run_checks(workspace) if finding.name == "C++ compiler"]
    return "" if found.status == "ok" else found.detail


def test_a_compiler_that_works_is_no_problem_and_nothing_is_left(tmp_path: Path) -> None:
    assert toolchain.find_problem("cpu", tmp_path / "not" / "yet") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("/opt/nowhere/bin/g++", "CXX names the C++ compiler `/opt/nowhere/bin/g++`, and there is no such program"),
        ("false", "the C++ compiler `false` fails: exit code 1"),
        ("true", "code cannot be built in "),
        ("broken", "the C++ compiler `broken` fails: fatal error: no backend"),
    ],
)
def test_a_compiler_that_does_not_work_is_told_alike_by_run_and_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, problem: str
) -> None:
    broken = tmp_path / "bin" / "broken"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho starting >&2\necho 'fatal error: no backend' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CXX", command)
    workspace = Workspace(tmp_path)
    found = toolchain.find_problem("cpu", toolchain.find_cache(workspace).directory)
    assert found is not None
    assert found.startswith(problem)
    assert said(workspace) == found


def test_a_compiler_that_only_cxx_names_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", only(tmp_path / "bin", "my-compiler"))
    assert toolchain.find_problem("cpu", tmp_path) == "there is no C++ compiler (g++, clang++, c++)"
    monkeypatch.setenv("CXX", str(tmp_path / "bin" / "my-compiler"))
    assert toolchain.find_problem("cpu", tmp_path) is None
    assert said(Workspace(tmp_path)) == ""


def test_a_compiler_under_its_other_name_is_given_to_inductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = tmp_path / "used"
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\necho used >> {used}\nexec {GXX} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    monkeypatch.setenv(toolchain.CACHE, str(tmp_path / "graphs"))
    region = Compiler("default", fullgraph=True)("double", lambda x: torch.sin(x) * 2.5)
    assert torch.equal(region(torch.zeros(64)), torch.zeros(64))
    assert used.exists()


def test_a_compiler_that_fails_in_the_middle_is_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text("#!/bin/sh\necho 'error: out of licences' >&2\nexit 1\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    monkeypatch.setenv(toolchain.CACHE, str(tmp_path / "graphs"))
    region = Compiler("default", fullgraph=True)("halve", lambda x: torch.cos(x) * 0.37)
    with pytest.raises(EnvironmentProblem, match=r"^region `halve` cannot be compiled on this machine: .*\n.*doctor"):
        region(torch.zeros(64))


def test_a_directory_that_cannot_be_written_to_is_told_once_and_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    for place in (workspace.cache, tmp_path / "home"):
        place.write_text("a file where a directory should be")
    assert toolchain.find_cache(workspace).directory is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        toolchain.settle(workspace)
        toolchain.settle(workspace)
    assert [str(warning.message).partition(":")[0] for warning in caught] == [
        f"compiled graphs cannot be kept in {workspace.cache / 'inductor'}"
    ]
    assert toolchain.CACHE not in os.environ
    [found] = [finding for finding in run_checks(workspace) if finding.name == "compiled graphs"]
    assert found.status == "note"
    monkeypatch.setenv(toolchain.CACHE, "/proc/nowhere")
    assert "cannot be kept in /proc/nowhere" in toolchain.find_cache(workspace).problem
