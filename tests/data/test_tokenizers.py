import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from corpora import prose
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gnflow.data.sources import readers
from gnflow.data.sources.corpus import Piece, wrap_texts
from gnflow.data.tokenizers import (
    END_OF_TEXT,
    Tokenizer,
    encode_pieces,
    make_bytes,
    make_tokenizer,
    open_pretrained,
    open_tokenizer,
    train_bpe,
)
from gnflow.errors import DataError
from gnflow.spec.data import PretrainedTokenizer

VOCABULARY = 320
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
TOKENIZERS = {"bpe": train_bpe([prose(2000).replace("\n", "  \n\n")], VOCABULARY), "bytes": make_bytes()}

Written = Callable[..., Path]


def ids_of(pieces: Iterator[Piece], tokenizer: Tokenizer) -> list[int]:
    return np.concatenate([ids for ids, _ in encode_pieces(pieces, tokenizer)]).tolist()


def saved(written: Written, name: str = "tokenizer.json", **changes: object) -> Path:
    content = json.loads(TOKENIZERS["bpe"].file or "")
    return written(name, json.dumps({**content, **changes}))


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(UNICODE)
@example("")
@example(f"a{END_OF_TEXT}b {END_OF_TEXT}")
@example("e\u0301 \r\n\t\x00 \U0001f451 \u200d\u2028 \ufeff")
@settings(max_examples=150, deadline=None)
def test_text_comes_back_from_its_tokens(kind: str, content: str) -> None:
    tokenizer = TOKENIZERS[kind]
    (ids,) = tokenizer.encode([content])
    assert tokenizer.decode(ids) == content
    assert tokenizer.end_of_text not in ids


@given(UNICODE)
@settings(max_examples=50, deadline=None)
def test_plain_bytes_are_the_utf8_of_the_text(content: str) -> None:
    (ids,) = make_bytes().encode([content])
    assert bytes(ids.tolist()) == content.encode()


@pytest.mark.parametrize("vocabulary", [257, 300, 512])
def test_a_bpe_has_exactly_the_entries_asked_for(vocabulary: int) -> None:
    tokenizer = train_bpe([prose(4000)], vocabulary)
    entries = json.loads(tokenizer.file or "")["model"]["vocab"]
    assert sorted(entries.values()) == list(range(vocabulary))
    assert entries[END_OF_TEXT] == tokenizer.end_of_text
    (ids,) = tokenizer.encode([bytes(range(256)).decode("latin1")])
    assert ids.max() < vocabulary


def test_a_bpe_is_the_same_however_many_threads_train_it() -> None:
    code = (
        "from gnflow.data.tokenizers import train_bpe\n"
        "words = [f'{a}{b} {a * a % 7} king' for a in range(97) for b in ('lear', 'john', 'henry', 'duke')]\n"
        "print(train_bpe([' '.join(words)] * 9, 360).file)"
    )
    files = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "5")
    ]
    assert files[0] == files[1] == files[2] != b"None\n"


def test_too_little_text_for_a_bpe_is_refused_with_both_sizes() -> None:
    with pytest.raises(DataError, match=r"vocabulary is 512, but the training text has pairs for 25\d entries only"):
        train_bpe(["aa"], 512)


def test_each_document_ends_with_one_mark() -> None:
    for tokenizer in TOKENIZERS.values():
        ids = ids_of(wrap_texts(["first", "", "second, and last"]), tokenizer)
        assert ids.count(tokenizer.end_of_text) == 2
        assert ids[-1] == tokenizer.end_of_text


def test_bytes_of_text_are_counted_without_the_marks() -> None:
    sizes = [size for _, size in encode_pieces(wrap_texts(["caf\u00e9", "x"]), TOKENIZERS["bpe"])]
    assert sum(sizes) == 6


@given(st.text(st.sampled_from("ab 1\n\t\u00a0\x1c'.\u00e9s"), min_size=1, max_size=120), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_a_long_document_has_the_same_tokens_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, content: str, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.txt"
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "PIECE", size)
        pieces = list(readers.read(path, "text"))
    assert "".join(piece.text for piece in pieces) == content
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for tokenizer in TOKENIZERS.values():
        assert ids_of(iter(pieces), tokenizer) == ids_of(wrap_texts([content]), tokenizer)


def test_a_ready_tokenizer_gives_the_tokens_of_the_one_that_was_saved(written: Written) -> None:
    path = saved(written)
    for named in (path, path.parent):
        tokenizer = open_pretrained(named, VOCABULARY)
        assert tokenizer.end_of_text == TOKENIZERS["bpe"].end_of_text
        assert tokenizer.encode([prose(50)])[0].tolist() == TOKENIZERS["bpe"].encode([prose(50)])[0].tolist()


def test_a_ready_tokenizer_sees_whole_documents(written: Written) -> None:
    tokenizer = open_pretrained(saved(written), VOCABULARY)
    pieces = [Piece("the qui", False), Piece("ck fox", True), Piece("king", True)]
    assert ids_of(iter(pieces), tokenizer) == ids_of(wrap_texts(["the quick fox", "king"]), tokenizer)


def test_a_ready_tokenizer_neither_cuts_nor_decorates(written: Written) -> None:
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [0], "tokens": [END_OF_TEXT]}},
    }
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    tokenizer = open_pretrained(saved(written, post_processor=template, truncation=cut), VOCABULARY)
    assert tokenizer.encode([prose(50)])[0].tolist() == TOKENIZERS["bpe"].encode([prose(50)])[0].tolist()


def test_a_ready_tokenizer_may_be_smaller_than_the_vocabulary_but_not_larger(written: Written) -> None:
    path = saved(written)
    assert open_pretrained(path, VOCABULARY + 7).end_of_text == 0
    with pytest.raises(
        DataError, match=rf"has {VOCABULARY} entries, but data.tokenizer.vocabulary is {VOCABULARY - 1}"
    ):
        open_pretrained(path, VOCABULARY - 1)


def test_the_end_of_text_is_the_one_its_configuration_names(written: Written) -> None:
    path = saved(written)
    king = json.loads(path.read_text())["model"]["vocab"]["a"]
    for value in ("a", {"content": "a", "special": True}):
        written("tokenizer_config.json", json.dumps({"eos_token": value}))
        assert open_pretrained(path, VOCABULARY).end_of_text == king
    written("tokenizer_config.json", json.dumps({"eos_token": "<gone>"}))
    with pytest.raises(DataError, match="no end-of-text token; gnflow looked for <gone>"):
        open_pretrained(path, VOCABULARY)
    for broken in ("[", "[]", "[" * 100_000):
        written("tokenizer_config.json", broken)
        with pytest.raises(DataError, match=r"tokenizer_config\.json is not a JSON object"):
            open_pretrained(path, VOCABULARY)


def test_a_tokenizer_without_an_end_of_text_says_what_to_write(written: Written) -> None:
    content = json.loads((TOKENIZERS["bpe"].file or "").replace(END_OF_TEXT, "<pad>"))
    path = written("tokenizer.json", json.dumps(content))
    with pytest.raises(DataError, match=r'(?s)looked for .*</s>.*put "eos_token": "..." into .*tokenizer_config.json'):
        open_pretrained(path, VOCABULARY)


def test_a_tokenizer_that_cannot_be_read_is_named(written: Written, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.tokenizer.path: there is no file .*nowhere"):
        open_pretrained(tmp_path / "nowhere", VOCABULARY)
    with pytest.raises(DataError, match=r"broken\.json is not a tokenizer\.json"):
        open_pretrained(written("broken.json", "{}"), VOCABULARY)


def test_an_added_token_that_is_not_special_is_one_id_unless_text_is_kept_as_text(written: Written) -> None:
    content = json.loads(TOKENIZERS["bpe"].file or "")
    think = {**content["added_tokens"][0], "id": VOCABULARY, "content": "<think>", "special": False}
    path = saved(written, added_tokens=[*content["added_tokens"], think])
    document = f"the <think> king {END_OF_TEXT}"
    spec = {"kind": "huggingface", "path": path.name, "vocabulary": VOCABULARY + 1}
    for added_tokens, ids in (("match", 1), ("text", 0)):
        chosen = PretrainedTokenizer.model_validate(spec | {"added_tokens": added_tokens})
        tokenizer = make_tokenizer(chosen, list, path.parent, print)
        found = tokenizer.encode([document])[0]
        assert found.tolist().count(VOCABULARY) == ids
        assert tokenizer.end_of_text not in found
        assert tokenizer.decode(found) == document
        kept_in = path.parent / added_tokens
        kept_in.mkdir()
        (kept_in / "tokenizer.json").write_text(tokenizer.file or "")
        assert open_tokenizer(chosen, kept_in).encode([document])[0].tolist() == found.tolist()
        assert json.loads(tokenizer.file or "")["added_tokens"][-1]["special"] is False
