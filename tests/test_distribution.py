"""The wheel and the sdist have what they should, and the wheel works in an empty folder outside the repository."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import distribution
import pytest
from distribution import ROOT, Distribution

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SMALL = {
    "layers": "1", "width": "16", "heads": "2", "steps": "2", "inner_steps": "2", "rows": "2", "seeds": "[1]",
    "tuning": "{trials: 1, seed: 0}",
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return distribution.build(tmp_path_factory.mktemp("built"))


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(built: Distribution) -> None:
    files = {path for path in (ROOT / "gnflow").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(built.wheel) as archive:
        found = set(archive.namelist())
        metadata = archive.read(f"gnflow-{PROJECT['version']}.dist-info/METADATA").decode()
    inside = {name for name in found if ".dist-info/" not in name}
    assert inside == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"gnflow/py.typed", "gnflow/study/report/page.css", "gnflow/study/report/page.js"} <= inside
    assert any(name.endswith("licenses/LICENSE") for name in found)
    assert f"\nVersion: {PROJECT['version']}\n" in metadata
    assert "\nRequires-Dist: torch>=2.11\n" in metadata


def test_the_sdist_makes_the_wheel_that_the_repository_makes(built: Distribution) -> None:
    assert built.wheel.read_bytes() == built.direct.read_bytes()
    with tarfile.open(built.sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"} <= set(names)
    assert not [name for name in names if name.split("/")[0] in ("tests", "pipelines", "specs", "docs", "runs")]


def test_all_files_give_one_version() -> None:
    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


class Newcomer:
    """Someone with an environment of the wheel and the packages of this one, in an empty folder without Git."""

    def __init__(self, wheel: Path, place: Path) -> None:
        self.folder, environment = place / "empty", place / "environment"
        self.folder.mkdir()
        venv.create(environment, with_pip=False)
        [packages] = environment.glob("lib/python*/site-packages")
        (packages / "lock.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
        path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.environment = {**variables, "PATH": path, "GIT_CEILING_DIRECTORIES": str(place)}

    def call(self, command: str, code: int = 0) -> str:
        """Return what the command prints, after checking its exit code."""
        done = subprocess.run(
            shlex.split(command), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def shrink(self, name: str) -> None:
        """Give the keys of a file that gnflow wrote small values."""
        file = self.folder / name
        text = file.read_text()
        for key, value in SMALL.items():
            text = re.sub(rf"^( *{key}:) \S.*$", rf"\1 {value}", text, flags=re.MULTILINE)
        plain = "" if name.endswith("study.yaml") else "\ncompile: {mode: off}\ntracking: none\n"
        file.write_text(text + plain)


@pytest.mark.slow
def test_the_wheel_leads_from_an_empty_folder_to_a_report_and_a_study(built: Distribution, tmp_path: Path) -> None:
    newcomer = Newcomer(built.wheel, tmp_path)
    call = newcomer.call
    assert call("gnflow --version") == f"gnflow {PROJECT['version']}\n"
    assert str(tmp_path) in call("python -c 'import gnflow; print(gnflow.__file__)'")

    for name, more in (("first", ""), ("other", " --optimizer muon")):
        assert "`gnflow init` makes a project" in call(f"gnflow new {name}{more}")
        newcomer.shrink(f"{name}.yaml")
    assert call("gnflow check first.yaml other.yaml").count(": ok") == 2
    assert "2 steps" in call("gnflow plan first.yaml")
    for name in ("first", "other"):
        assert "complete" in call(f"gnflow run {name}.yaml")
    assert "held-out loss" in call("gnflow compare runs/first runs/other")
    call("gnflow report runs/first runs/other -o report.html")
    assert "<svg" in (newcomer.folder / "report.html").read_text()
    call("gnflow schema -o schema.json")

    written = call("gnflow new trial --study")
    folder = newcomer.folder / "pipelines" / "trial"
    for file in folder.glob("*.yaml"):
        newcomer.shrink(f"pipelines/trial/{file.name}")
    assert "  gnflow init " in written  # the pipeline needs a repository, and says so
    assert "run `gnflow init`" in call("gnflow study plan pipelines/trial")
    call("gnflow init")
    assert "run `gnflow init`" not in call("gnflow study plan pipelines/trial")
    [command] = re.findall(r"^next: (.*)$", call("gnflow study pipeline pipelines/trial"), flags=re.MULTILINE)
    call(f"python -m {command}")
    assert len(list(newcomer.folder.glob("runs/trial/*/*/summary.json"))) == 4
    assert (folder / "report.html").is_file()
    assert "didn't change, skipping" in call(f"python -m {command}")
