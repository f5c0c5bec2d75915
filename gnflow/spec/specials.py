"""Ids of the marks that give a multimodal sequence its form: the last ones of the text range."""

from collections.abc import Mapping
from typing import Literal

Style = Literal["emu3", "janus"]
Special = Literal["BOS", "EOS", "PAD", "BOI", "EOI", "IMG", "EOL", "EOF", "PLACEHOLDER"]

SPECIALS: Mapping[Style, tuple[Special, ...]] = {
    "emu3": ("BOS", "EOS", "PAD", "BOI", "IMG", "EOL", "EOF", "EOI"),
    "janus": ("BOS", "EOS", "PAD", "BOI", "EOI", "PLACEHOLDER"),
}


def number_specials(style: Style, text_vocabulary: int) -> dict[Special, int]:
    """Return the id of each mark of a style, given the size of the text range, which includes the marks."""
    names = SPECIALS[style]
    return {name: text_vocabulary - len(names) + place for place, name in enumerate(names)}
