"""What a source needs is asked by `gnflow check` through a function that its class names, whoever wrote the class."""

import subprocess
import sys
from pathlib import Path

import pytest

from gnflow.data.sources import needs
from gnflow.errors import EnvironmentProblem
from gnflow.spec import data, multimodal
from gnflow.spec.base import Kind
from gnflow.spec.data import SourceKind
from gnflow.spec.factory import import_function
from gnflow.spec.multimodal import ImageHub, ImageKind, ImageTable

OURS = [
    kind
    for base in (SourceKind, ImageKind, ImageTable)
    for kind in base.__subclasses__()
    if kind.factory and kind.__module__ in (data.__name__, multimodal.__name__)
]
LETTERS = """
from pathlib import Path
from typing import Literal

from gnflow.plugin import DataError, SourceKind


class Letters(SourceKind):
    factory = "torch:no_factory_is_imported_by_a_check"
    needs = "my_sources:needed"
    kind: Literal["letters"] = "letters"


def needed(source: Letters, root: Path) -> None:
    if not (root / "letters").is_dir():
        raise DataError("there are no letters\\nwrite some")
"""
SPEC = "name: a\ndata: {source: letters}\noptimizer: adamw\ntraining: {steps: 3, start: scratch}\ntracking: none\n"
HEAVY = ("torch", "mlflow", "polars", "datasets")
CODE = (
    "import sys\nfrom gnflow.cli import main\n"
    "try:\n    main()\nfinally:\n"
    f"    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
)


def checked(root: Path) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "check", "a.yaml"], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_source_that_comes_with_gnflow_says_what_it_needs(kind: type[Kind]) -> None:
    assert callable(import_function(kind.model_construct(), "needs"))


def test_there_are_eight_of_them() -> None:
    assert len(OURS) == 8


def test_a_plugin_says_what_it_needs_and_its_factory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "pyproject.toml").write_text('[tool.gnflow.sources]\nletters = "my_sources:Letters"\n')
    (tmp_path / "my_sources.py").write_text(LETTERS)
    (tmp_path / "a.yaml").write_text(SPEC)
    expected = "a.yaml: ok\n  missing for a run: there are no letters; write some\n"
    assert checked(tmp_path) == (expected, "[]")
    (tmp_path / "letters").mkdir()
    assert checked(tmp_path)[0] == "a.yaml: ok\n"


def test_looking_for_the_files_of_a_corpus_opens_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "a.yaml").write_text(SPEC.replace("letters", "{kind: files, paths: ['*.parquet']}"))
    (tmp_path / "rows.parquet").write_text("no table")
    assert checked(tmp_path) == ("a.yaml: ok\n", "[]")


def test_a_package_that_is_not_installed_is_called_what_pip_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(EnvironmentProblem, match=r"package pillow, .+\nrun: pip install 'gnflow\[images\]'"):
        needs.require_images(ImageHub.model_construct(), Path())
