"""The directory of compiled graphs that projects share, and what a killed linker leaves in it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gnflow.commands.doctor import run_checks
from gnflow.compiler import graphs, toolchain
from gnflow.workspace import Workspace

NAME = "ctest"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(toolchain.CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    found = graphs.find_shared()
    assert found is not None
    return found


def put(directory: Path, content: bytes) -> Path:
    path = directory / "te" / f"{NAME}.main.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read_library() -> bytes:
    import torch

    return (Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so").read_bytes()


def test_two_projects_share_a_directory_unless_one_has_its_own(tmp_path: Path, shared: Path) -> None:
    one, two = Workspace(tmp_path / "one"), Workspace(tmp_path / "two")
    assert shared.is_relative_to(tmp_path / "home" / "gnflow" / "graphs")
    assert [toolchain.find_cache(each).directory for each in (one, two)] == [shared, shared]
    own = two.cache / "inductor"
    own.mkdir(parents=True)
    assert [toolchain.find_cache(each).directory for each in (one, two)] == [shared, own]


def test_a_home_that_cannot_be_written_to_leaves_the_project(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "home").write_text("a file")
    (tmp_path / "one").mkdir()
    workspace = Workspace(tmp_path / "one")
    assert toolchain.find_cache(workspace) == toolchain.Kept(workspace.cache / "inductor")


def test_another_processor_has_another_directory(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "z80")
    assert graphs.find_shared() != shared
    assert graphs.find_shared().parent == shared.parent


def test_doctor_names_the_directory_and_its_size(tmp_path: Path, shared: Path) -> None:
    put(shared, bytes(2**20))
    [found] = [each for each in run_checks(Workspace(tmp_path)) if each.name == "compiled graphs"]
    assert (found.status, found.detail.partition(";")[0]) == ("ok", f"{shared}, 1 MiB")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the format of Linux")
def test_torn_libraries_are_removed_and_whole_ones_are_not(shared: Path) -> None:
    whole = read_library()
    for content in (b"", whole[:50], whole[: len(whole) // 2], whole[:-1], bytes(len(whole))):
        path = put(shared, content)
        assert graphs.remove_torn(shared) == [path]
        assert not path.exists()
    path = put(shared, whole)
    assert graphs.remove_torn(shared) == []
    assert path.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the format of Linux")
def test_a_library_that_is_being_written_stays(shared: Path) -> None:
    path = put(shared, b"")
    (shared / "locks").mkdir()
    with (shared / "locks" / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert graphs.remove_torn(shared) == []
    assert graphs.remove_torn(shared) == [path]


# Without vectors and a precompiled header: an empty cache costs one call of the compiler, not eight.
SCALAR = {"TORCHINDUCTOR_VEC_ISA_OK": "0", "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0"}
COMPILE = """
import sys, torch
from pathlib import Path
from gnflow.compiler import toolchain
from gnflow.compiler.regions import Compiler
from gnflow.workspace import Workspace
toolchain.settle(Workspace(Path(sys.argv[1])))
region = Compiler("default", fullgraph=True)("fold", lambda x: torch.sin(x) * 1.25)
x = torch.arange(64.0)
assert torch.allclose(region(x), torch.sin(x) * 1.25)
from torch._dynamo.utils import counters
print(counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the format of Linux")
def test_damaged_files_of_the_cache_are_made_again(tmp_path: Path, shared: Path) -> None:
    def compile_in(project: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", COMPILE, str(tmp_path / project)], capture_output=True, text=True, check=False,
            env={name: value for name, value in os.environ.items() if name != toolchain.CACHE} | SCALAR,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert compile_in("one") == "0"
    assert compile_in("two") == "1"
    libraries = list(shared.rglob("*.so"))
    assert libraries
    for path in libraries:
        os.truncate(path, path.stat().st_size // 2)
    for path in (shared / "fxgraph").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    assert compile_in("two") == "0"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the format of Linux")
def test_what_another_process_tries_its_compiler_with_stays_until_it_is_left(shared: Path) -> None:
    """Else one of two runs that begin together finds no compiler, and runs eagerly, with other bits."""
    trying, left = shared / f"{graphs.TRIED}a" / "tiny.so", shared / f"{graphs.TRIED}b" / "tiny.so"
    for path in (trying, left):
        path.parent.mkdir(parents=True)
        path.write_bytes(read_library()[:100])
    os.utime(left.parent, (0, 0))
    assert graphs.remove_torn(shared) == []
    assert trying.exists()
    assert not left.parent.exists()
