"""The text of an installed distribution: SymPy, which torch brings with it."""

from importlib.metadata import version
from pathlib import Path

import pytest
from corpora import documents, text

from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.workspace import Workspace

SYMPY = {"kind": "package", "distribution": "sympy", "version": version("sympy")}


def dataset(workspace: Workspace, **source: object) -> Dataset:
    return prepare(text(source={**SYMPY, **source}, tokenizer="bytes", context=8), workspace)


def test_each_file_is_a_document_and_what_is_held_out_is_not_trained_on(workspace: Workspace) -> None:
    found = dataset(workspace, paths=["sympy/unify/*.py"], held_out=["sympy/unify/rewrite.py"])
    import sympy.unify

    folder = Path(sympy.unify.__file__).parent
    texts = {path.name: path.read_text() for path in sorted(folder.glob("*.py"))}
    assert documents(found.held_out) == [texts.pop("rewrite.py")]
    assert documents(found.train) == [content for content in texts.values() if content]
    assert found.directory.name.startswith("sympy-bytes-257-")


def test_another_version_is_another_text(workspace: Workspace) -> None:
    with pytest.raises(EnvironmentProblem, match=r"text of sympy==1\.0, but .* is installed\nrun: pip install sympy=="):
        dataset(workspace, version="1.0", paths=["sympy/unify/*.py"], held_out=["sympy/unify/rewrite.py"])


def test_a_distribution_that_is_not_there(workspace: Workspace) -> None:
    with pytest.raises(EnvironmentProblem, match="not installed\nrun: pip install no-such-thing==1"):
        dataset(workspace, distribution="no-such-thing", version="1", paths=["a"], held_out=["b"])


def test_only_its_own_files_can_be_named(workspace: Workspace) -> None:
    with pytest.raises(DataError, match="is no file of sympy"):
        dataset(workspace, paths=["torch/version.py"], held_out=["sympy/unify/rewrite.py"])
    assert not workspace.data.exists()
