"""Build the sdist and the wheel from a copy of the repository: `python tests/distribution.py FOLDER`."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
HOOK = "import sys; from setuptools import build_meta; print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))"
FIXED = "1577836800"  # the time of every file in a wheel, so that equal sources make equal bytes


class Distribution(NamedTuple):
    """The two files that are published, and a wheel that was made from the repository itself."""

    sdist: Path
    wheel: Path
    """It is made from the sdist."""
    direct: Path


def build(folder: Path) -> Distribution:
    """Build all into an empty folder, with the setuptools of this environment."""
    source, unpacked = folder / "source", folder / "unpacked"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("gnflow", "tests", "specs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for file in (path for path in ROOT.iterdir() if path.is_file()):
        shutil.copy(file, source)
    sdist = _call("sdist", source, folder / "dist")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    [inside] = unpacked.iterdir()
    return Distribution(
        sdist, _call("wheel", inside, folder / "dist"), _call("wheel", source, folder / "direct")
    )  # fmt: skip


def _call(kind: str, source: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": FIXED}
    command = [sys.executable, "-c", HOOK, kind, str(target)]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.splitlines()[-1]


if __name__ == "__main__":
    wanted = Path(sys.argv[1])
    wanted.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        made = build(Path(temporary))
        for file in (made.sdist, made.wheel):
            print(shutil.copy(file, wanted))
