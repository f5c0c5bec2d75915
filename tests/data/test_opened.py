from pathlib import Path

from gnflow.data.sources.corpus import Corpus, Pieces
from gnflow.data.sources.opened import Opened, from_texts

TEXTS = [f"text {number}" for number in range(20)]


def texts(pieces: Pieces) -> list[str]:
    found = list(pieces())
    assert all(piece.ends for piece in found)
    return [piece.text for piece in found]


def both(opened: Opened) -> tuple[list[str], list[str]]:
    corpus: Corpus = opened.corpus()
    return texts(corpus.train), texts(corpus.held_out)


def test_both_splits_may_be_given() -> None:
    opened = from_texts(lambda sha256: sha256(Path("a")), lambda: TEXTS, lambda: ["held", "", "out"])
    assert both(opened) == both(opened) == (TEXTS, ["held", "out"])
    assert opened.identity(lambda path: f"digest of {path}") == "digest of a"


def test_a_part_of_the_texts_is_held_out_where_none_is_given() -> None:
    assert both(from_texts(lambda sha256: None, lambda: iter(TEXTS))) == (TEXTS[:19], TEXTS[19:])
    assert both(from_texts(lambda sha256: None, lambda: iter(TEXTS), held_out_fraction=0.5)) == (TEXTS[:10], TEXTS[10:])


def test_nothing_is_read_before_it_is_asked_for() -> None:
    def unread() -> list[str]:
        raise AssertionError

    from_texts(lambda sha256: None, unread, unread).corpus()
    from_texts(lambda sha256: None, unread)
