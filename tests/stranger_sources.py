"""A source of text as somebody who does not work on gnflow writes it, in a module of their own."""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from gnflow.spec.base import Spec
from gnflow.spec.data import Bytes, SourceKind, Text

NAME = "my_sources"
POEMS = '''
"""Poems in a folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from gnflow.data.sources.opened import Opened, Ready, from_texts
from gnflow.spec.base import Name
from gnflow.spec.data import SourceKind

CALLS = []


class Poems(SourceKind):
    """One poem a file."""

    factory = "my_sources:poems"
    kind: Literal["poems"] = "poems"
    folder: Name = "poems"
    """Where they are."""


def poems(source: Poems, root: Path) -> Opened:
    def files() -> list[Path]:
        return sorted((root / source.folder).glob("*.txt"))

    def texts() -> Iterator[str]:
        CALLS.append("read")
        return (path.read_text() for path in files())

    return from_texts(lambda sha256: {path.name: sha256(path) for path in files()}, texts, held_out_fraction=0.25)


class Numbers(SourceKind):
    """Ids that follow a rule."""

    factory = "my_sources:numbers"
    ready = True
    kind: Literal["numbers"] = "numbers"
    below: int = 7
    count: int = 40

    def entries(self, tokenizer: object) -> int:
        return self.below


def numbers(source: Numbers, root: Path) -> Ready:
    ids = np.arange(source.count) ** 2 % 7
    return Ready(lambda sha256: "squares", lambda: np.split(ids, 4), lambda: [ids[:10]])
'''


def source(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch, content: str = POEMS, **keys: object) -> SourceKind:
    """One of the classes of a module that lies in `root`."""
    (root / f"{NAME}.py").write_text(content)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    found = getattr(import_module(NAME), kind)(**keys)
    assert isinstance(found, SourceKind)
    return found


def section(source: SourceKind, context: int = 4) -> Text:
    """The `data:` section that names it."""
    changes: Mapping[str, Spec | None] = {"source": source, "tokenizer": None if source.ready else Bytes()}
    return Text(context=context).model_copy(update=changes)


def write_poems(root: Path, count: int = 8) -> list[str]:
    """Poems for `Poems`."""
    (root / "poems").mkdir(parents=True, exist_ok=True)
    texts = [f"Poem {number}: roses are red, and violets are number {number * number}." for number in range(count)]
    for number, text in enumerate(texts):
        (root / "poems" / f"{number:02}.txt").write_text(text)
    return texts
