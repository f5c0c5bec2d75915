"""Samples as sequences of ids, in the form of Emu3 or of Janus, and back.

    emu3   text           BOS text EOS
           understanding  BOS BOI "h*w" IMG (codes of a row, EOL) for each row, EOF EOI caption EOS
           generation     BOS caption BOI "h*w" IMG (codes of a row, EOL) for each row, EOF EOI EOS
    janus  text           BOS text EOS
           understanding  BOS BOI placeholders EOI caption EOS
           generation     BOS caption BOI codes EOI EOS

Text and marks come first in the joint space of ids, image codes after them.

Source: Wu et al. 2024, arXiv:2410.13848 (Janus); Wang et al. 2024, arXiv:2409.18869 (Emu3)
Code:   github.com/baaivision/Emu3 emu3/mllm/processing_emu3.py; github.com/deepseek-ai/Janus janus/models
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnflow.data.tokenizers import Ids
from gnflow.groups import GROUPS, Task
from gnflow.spec.multimodal import Multimodal
from gnflow.spec.specials import Special, Style, number_specials

Rows = NDArray[np.integer]
CODE = -1
"""Stands for any code in a template."""


@dataclass(frozen=True)
class Sequences:
    """The form of the sequences of one dataset."""

    style: Style
    marks: Mapping[Special, int]
    text_vocabulary: int
    codebook: int
    grid: tuple[int, int]
    placeholders: int
    """Patches of an image that is read (`janus`)."""
    size: tuple[int, ...]
    """The ids of the text "h*w" (`emu3`)."""

    def make_text(self, words: Ids) -> Ids:
        """Make a sequence of text alone."""
        return self._join(self.marks["BOS"], words, self.marks["EOS"])

    def make_understanding(self, words: Ids, codes: NDArray[np.int64]) -> Ids:
        """Make a sequence of an image and its caption; without its codes for `janus`, which reads pixels."""
        return self._join(self.marks["BOS"], self._make_image("understanding", codes), words, self.marks["EOS"])

    def make_generation(self, words: Ids, codes: NDArray[np.int64]) -> Ids:
        """Make a sequence of a caption and its image."""
        return self._join(self.marks["BOS"], words, self._make_image("generation", codes), self.marks["EOS"])

    def drop_prompt(self, words: Ids) -> Ids:
        """Replace a prompt that is dropped: by nothing, or by as many PAD (`janus`)."""
        return words[:0] if self.style == "emu3" else np.full_like(words, self.marks["PAD"])

    def make_template(self, task: Task) -> NDArray[np.int64]:
        """Make an image from BOI to EOI, with CODE in place of its codes."""
        height, width = self.grid
        mark = self.marks
        if self.style == "emu3":
            row = [*[CODE] * width, mark["EOL"]]
            block = [mark["BOI"], *self.size, mark["IMG"], *row * height, mark["EOF"], mark["EOI"]]
        elif task == "understanding":
            block = [mark["BOI"], *[mark["PLACEHOLDER"]] * self.placeholders, mark["EOI"]]
        else:
            block = [mark["BOI"], *[CODE] * (height * width), mark["EOI"]]
        return np.array(block, dtype=np.int64)

    def find_groups(self, ids: Rows, task: Task) -> NDArray[np.uint8]:
        """Return for every id as a target the index of its group in GROUPS plus 1, or 0: [rows, length].

        Emu3 learns all but BOS and PAD; Janus the target modality alone: codes, or text that no image follows.
        """
        text, image = (_find_group(task, modality) for modality in ("text", "image"))
        code = ids >= self.text_vocabulary
        found = np.where(code, image, text)
        if self.style == "janus":
            wanted = {"text": ~code, "understanding": self._find_answers(ids), "generation": code}[task]
            found = np.where(wanted, found, 0)
        unlearned = (ids == self.marks["BOS"]) | (ids == self.marks["PAD"])
        return np.where(unlearned, 0, found).astype(np.uint8)

    def find_codes(self, ids: Rows) -> NDArray[np.int64]:
        """Return the codes of the images in a stream of ids, in order: [images, codes]."""
        found = ids[ids >= self.text_vocabulary].astype(np.int64) - self.text_vocabulary
        return found.reshape(-1, self.grid[0] * self.grid[1])

    def find_words(self, ids: Rows) -> list[Ids]:
        """Return the ids of text of each sample in a stream of ids, without marks."""
        ids = np.asarray(ids).reshape(-1)
        starts = np.flatnonzero(ids == self.marks["BOS"])
        return [self._cut_words(sample) for sample in np.split(ids, starts)[1:]]

    def _cut_words(self, sample: Rows) -> Ids:
        first, last = (np.flatnonzero(sample == self.marks[mark]) for mark in ("BOI", "EOI"))
        outside = np.ones(len(sample), dtype=bool)
        if len(first) and len(last):
            outside[first[0] : last[0]] = False
        plain = sample < self.text_vocabulary - len(self.marks)
        return sample[outside & plain].astype(np.uint32)

    def _find_answers(self, ids: Rows) -> NDArray[np.bool_]:
        """Return the mask of ids that come after the image of their sample."""
        ends = ids == self.marks["EOI"]
        begun = (ids == self.marks["BOS"]).cumsum(axis=-1)
        return np.asarray(ends.cumsum(axis=-1) - ends == begun)

    def _make_image(self, task: Task, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        block = self.make_template(task)
        slots = block == CODE
        if slots.any():
            block[slots] = self.text_vocabulary + codes
        return block

    def _join(self, *parts: int | Ids | NDArray[np.int64]) -> Ids:
        return np.concatenate([np.atleast_1d(np.asarray(part)) for part in parts]).astype(np.uint32)


def make_sequences(data: Multimodal, encode: Callable[[list[str]], list[Ids]]) -> Sequences:
    """Make the form of sequences that `data` asks for. `encode` encodes text."""
    height, width = data.grid
    (size,) = encode([f"{height}*{width}"])
    return Sequences(
        data.style,
        number_specials(data.style, data.text_vocabulary),
        data.text_vocabulary,
        data.codebook,
        data.grid,
        data.understanding_tokens,
        tuple(size.tolist()),
    )


def _find_group(task: Task, modality: str) -> int:
    # Text rows have no image group: a code in one is refused when the rows are checked.
    return next((1 + place for place, group in enumerate(GROUPS) if group == (task, modality)), 0)
