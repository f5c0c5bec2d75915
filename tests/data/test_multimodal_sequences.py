"""Every form against sequences written out by hand."""

import numpy as np
import pytest

from gnflow.data.multimodal.sequences import Sequences
from gnflow.spec.specials import SPECIALS, number_specials

# Text has ids 0 to 9; then the marks; then codes.
EMU3 = number_specials("emu3", 18)
JANUS = number_specials("janus", 16)
WORDS, CODES = np.array([3, 4, 5], dtype=np.uint32), np.array([6, 0, 2, 1, 1, 5])
emu3 = Sequences("emu3", EMU3, 18, 7, grid=(2, 3), placeholders=6, size=(2, 9, 3))
janus = Sequences("janus", JANUS, 16, 7, grid=(2, 3), placeholders=4, size=(2, 9, 3))

BOS, EOS, PAD, BOI, IMG, EOL, EOF, EOI = range(10, 18)
JBOS, JEOS, JPAD, JBOI, JEOI, PLACEHOLDER = range(10, 16)
EMU3_IMAGE = [BOI, 2, 9, 3, IMG, 24, 18, 20, EOL, 19, 19, 23, EOL, EOF, EOI]
JANUS_IMAGE = [JBOI, 22, 16, 18, 17, 17, 21, JEOI]


def test_marks_are_the_last_ids_of_text_in_the_order_of_their_names() -> None:
    assert [EMU3[name] for name in SPECIALS["emu3"]] == [BOS, EOS, PAD, BOI, IMG, EOL, EOF, EOI]
    assert [JANUS[name] for name in SPECIALS["janus"]] == [JBOS, JEOS, JPAD, JBOI, JEOI, PLACEHOLDER]


def test_emu3_writes_rows_of_codes_with_marks() -> None:
    assert emu3.make_generation(WORDS, CODES).tolist() == [BOS, 3, 4, 5, *EMU3_IMAGE, EOS]
    assert emu3.make_understanding(WORDS, CODES).tolist() == [BOS, *EMU3_IMAGE, 3, 4, 5, EOS]
    assert emu3.make_text(WORDS).tolist() == [BOS, 3, 4, 5, EOS]


def test_janus_reads_placeholders_and_writes_codes() -> None:
    assert janus.make_generation(WORDS, CODES).tolist() == [JBOS, 3, 4, 5, *JANUS_IMAGE, JEOS]
    assert janus.make_understanding(WORDS, CODES).tolist() == [JBOS, JBOI, *[PLACEHOLDER] * 4, JEOI, 3, 4, 5, JEOS]
    assert janus.make_text(WORDS).tolist() == [JBOS, 3, 4, 5, JEOS]


def test_a_dropped_prompt_is_left_out_by_emu3_and_blanked_by_janus() -> None:
    assert emu3.make_generation(emu3.drop_prompt(WORDS), CODES).tolist() == [BOS, *EMU3_IMAGE, EOS]
    assert janus.make_generation(janus.drop_prompt(WORDS), CODES).tolist() == [JBOS, *[JPAD] * 3, *JANUS_IMAGE, JEOS]


def test_emu3_learns_every_token_but_the_first_mark_and_padding() -> None:
    # In GROUPS, from 1: text; understanding text, image; generation text, image.
    row = np.concatenate([emu3.make_understanding(WORDS, CODES), [PAD]])
    image = [2, 2, 2, 2, 2, 3, 3, 3, 2, 3, 3, 3, 2, 2, 2]
    assert emu3.find_groups(row[None], "understanding").tolist() == [[0, *image, 2, 2, 2, 2, 0]]
    row = np.concatenate([emu3.make_generation(WORDS, CODES), [PAD]])
    assert emu3.find_groups(row[None], "generation").tolist() == [[0, 4, 4, 4, *[g + 2 for g in image], 4, 0]]
    assert emu3.find_groups(emu3.make_text(WORDS)[None], "text").tolist() == [[0, 1, 1, 1, 1]]


def test_janus_learns_the_target_modality_alone() -> None:
    row = np.concatenate([janus.make_understanding(WORDS, CODES), janus.make_understanding(WORDS[:1], CODES), [JPAD]])
    assert janus.find_groups(row[None], "understanding").tolist() == [[0] * 7 + [2] * 4 + [0] * 7 + [2] * 2 + [0]]
    row = np.concatenate([janus.make_generation(WORDS, CODES), [JPAD]])
    assert janus.find_groups(row[None], "generation").tolist() == [[0] * 5 + [5] * 6 + [0] * 3]
    assert janus.find_groups(janus.make_text(WORDS)[None], "text").tolist() == [[0, 1, 1, 1, 1]]


@pytest.mark.parametrize("form", [emu3, janus], ids=["emu3", "janus"])
def test_codes_and_words_come_back_from_a_stream(form: Sequences) -> None:
    stream = np.concatenate(
        [
            form.make_generation(WORDS, CODES),
            form.make_generation(form.drop_prompt(WORDS), CODES[::-1]),
            [form.marks["PAD"]],
        ]
    )
    assert form.find_codes(stream).tolist() == [CODES.tolist(), CODES[::-1].tolist()]
    assert [words.tolist() for words in form.find_words(stream)] == [[3, 4, 5], []]
    stream = np.concatenate([form.make_understanding(WORDS, CODES), form.make_text(WORDS[:2])])
    assert [words.tolist() for words in form.find_words(stream)] == [[3, 4, 5], [3, 4]]
    assert form.find_codes(stream).tolist() == ([CODES.tolist()] if form is emu3 else [])
