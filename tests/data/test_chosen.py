from importlib import import_module

import numpy as np
import pytest
import stranger_sources as strangers
from corpora import documents
from gallery import multimodal
from stranger_sources import POEMS, section, source, write_poems

from gnflow.data.prepare import prepare
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.base import Kind
from gnflow.spec.data import SourceKind
from gnflow.spec.multimodal import ImageKind
from gnflow.workspace import Workspace


def kinds(base: type[Kind]) -> list[type[Kind]]:
    return [base, *(kind for below in base.__subclasses__() for kind in kinds(below))]


@pytest.mark.parametrize(
    "kind",
    [kind for kind in kinds(SourceKind) + kinds(ImageKind) if kind.factory.startswith("gnflow.")],
    ids=lambda kind: kind.factory,
)
def test_the_factory_of_every_source_of_ours_is_there(kind: type[Kind]) -> None:
    module, _, name = kind.factory.partition(":")
    assert callable(getattr(import_module(module), name))


def test_a_strangers_source_is_prepared_as_any_other(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = write_poems(workspace.root)
    dataset = prepare(section(source("Poems", workspace.root, monkeypatch)), workspace)
    assert documents(dataset.train) == texts[:6]
    assert documents(dataset.held_out) == texts[6:]
    assert dataset.directory.name.startswith("poems-bytes-257-")
    assert dataset.decode_row(dataset.make_microbatches(1, seed=0).take(0, 1)[0, 0]) in "".join(texts)


def test_a_strangers_source_is_read_once_and_known_by_its_identity(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_poems(workspace.root)
    poems = source("Poems", workspace.root, monkeypatch)
    calls = import_module(strangers.NAME).CALLS
    first = prepare(section(poems), workspace)
    read = len(calls)
    assert prepare(section(poems), workspace).digest == first.digest
    assert len(calls) == read > 0
    (workspace.root / "poems" / "00.txt").write_text("Another poem.")
    again = prepare(section(poems), workspace)
    assert again.directory != first.directory
    assert documents(again.train)[0] == "Another poem."


def test_a_strangers_source_that_changes_while_it_is_read_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_poems(workspace.root)
    poems = source("Poems", workspace.root, monkeypatch)

    def change(line: str) -> None:
        (workspace.root / "poems" / "00.txt").write_text("Another poem.")

    with pytest.raises(DataError, match="changed while they were read"):
        prepare(section(poems), workspace, change)


def test_a_strangers_ids_are_taken_as_they_are(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = section(source("Numbers", workspace.root, monkeypatch))
    dataset = prepare(numbers, workspace)
    assert dataset.train.tolist() == (np.arange(40) ** 2 % 7).tolist()
    assert dataset.vocabulary == numbers.vocabulary == 7
    assert dataset.decode_row(dataset.make_microbatches(1, seed=0).take(0, 1)[0, 0]).split()[0].isdigit()
    assert dataset.directory.name.startswith("numbers-7-")
    assert numbers.meaning == {}


def test_a_strangers_source_gives_the_rows_of_text_between_images(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = write_poems(workspace.root, 12)
    poems = source("Poems", workspace.root, monkeypatch)
    data = multimodal("emu3", tokenizer="bytes", context=80).model_copy(update={"text": poems})
    dataset = prepare(data, workspace)
    rows = dataset.train.find_rows("text")
    found = [text for row in dataset.train.ids[rows] for text in dataset.decode_texts(row)]
    assert sorted(found) == sorted(texts[:9])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('factory = "my_sources:poems"', "pass", r"the class has no `factory`"),
        ('"my_sources:poems"', '"my_source:poems"', r"there is no module `my_source` installed"),
        ('"my_sources:poems"', '"my_sources:songs"', r"the module has no function `songs`$"),
        ('"my_sources:poems"', '"broken:poems"', r"ZeroDivisionError: .*\(broken\.py:2\)$"),
        ("source: Poems, root: Path", "source: Poems", r"poems` raised TypeError: .*takes 1 positional argument"),
        ("    return from_texts(", "    from_texts(", r"returned nothing, expected Opened$"),
        ("path.read_text() for", "path.read_bytes() for", r"its factory gave bytes for a text; expected str$"),
        ("path.read_text() for", r"'\ud800' for", r"it raised UnicodeEncodeError: .*surrogates not allowed"),
        ("path.read_text() for", "open('gone').read() for", r"it raised FileNotFoundError: .*\(my_sources\.py:\d+\)"),
        ("held_out_fraction=0.25", "lambda: 1 / 0", r"it raised ZeroDivisionError: .*\(my_sources\.py:\d+\)$"),
        ("sha256(path) for path in files()}", "path for path in files()}", r"TypeError: .*not JSON serializable"),
    ],
)
def test_a_strangers_source_that_is_at_fault_is_named_in_one_line(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, old: str, new: str, problem: str
) -> None:
    write_poems(workspace.root)
    (workspace.root / "broken.py").write_text("\n1 / 0\n")
    assert POEMS.count(old) == 1
    bad = source("Poems", workspace.root, monkeypatch, POEMS.replace(old, new))
    with pytest.raises(EnvironmentProblem, match=rf"^kind `poems` .*{problem}") as refused:
        prepare(section(bad), workspace)
    assert "\n" not in str(refused.value)
    assert not [path for path in workspace.data.glob("*") if path.is_dir()]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("below: int = 7", "below: int = 4", "gave ids from 0 to 4; expected 0 to 3"),
        ("[ids[:10]]", "[ids / 2]", "gave ndarray for ids; expected one-dimensional arrays of integers"),
        ("[ids[:10]]", "[1, 2]", "gave int for ids; expected one-dimensional arrays of integers"),
        ("[ids[:10]]", "1 / 0", r"it raised ZeroDivisionError: .*\(my_sources\.py:\d+\)"),
        ("return Ready(", "return from_texts(", r"returned a value of type `Opened`, expected Ready"),
    ],
)
def test_ids_that_a_stranger_should_not_give_are_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, old: str, new: str, problem: str
) -> None:
    assert POEMS.count(old) == 1
    bad = source("Numbers", workspace.root, monkeypatch, POEMS.replace(old, new))
    with pytest.raises(EnvironmentProblem, match=rf"^kind `numbers` .*: .*{problem}$"):
        prepare(section(bad), workspace)


def test_what_a_stranger_says_to_the_user_is_said_as_it_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = "from gnflow.errors import DataError\n        raise DataError('there is no poem')"
    bad = source("Poems", workspace.root, monkeypatch, POEMS.replace('CALLS.append("read")', refusal))
    with pytest.raises(DataError, match=r"^there is no poem$"):
        prepare(section(bad), workspace)
