"""Find characters that look like those of YAML. They come with text from web pages and word processors.

A spec may hold any character in its texts. So a look-alike is reported only if something is wrong already: in an
unknown key, in a value that is not allowed, or in lines that the parser could not read.
"""

import re
import unicodedata
from dataclasses import replace

from gnflow.spec.problems import Problem
from gnflow.spec.tree import Origin, Source

_QUOTES = {"\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'"} | dict.fromkeys(
    "\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'
)
_DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63", "-")
_COLONS = dict.fromkeys("\u02d0\u02f8\u0589\u05c3\u2236\ua789\ufe13\ufe55", ":")
# Letters of other alphabets, by the Latin letter that they are drawn like.
_LETTERS = {
    **dict(
        zip(
            "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u051b\u051d",
            "aeopcyxijsdhqw",
            strict=True,
        )
    ),
    **dict(
        zip(
            "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405",
            "ABEKMHOPCTXIJS",
            strict=True,
        )
    ),
    **dict(zip("\u03b1\u03bd\u03bf\u03c1\u03c5\u03b9\u03ba", "avopuik", strict=True)),
    **dict(
        zip(
            "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
            "ABEZHIKMNOPTYX",
            strict=True,
        )
    ),
}
_PLAIN = {**_QUOTES, **_DASHES, **_COLONS, **_LETTERS}
_NO_WIDTH = {"\u00ad", "\u180e", "\ufe0e", "\ufe0f"}
# Lines that the parser may have swallowed before it noticed: a value without its space joins the line that follows.
_LINES_BACK = 3
_WITHIN_TEXT = {*_QUOTES, *_DASHES, *_LETTERS}
_OPENS = re.compile(r"(?:^|[:,\[{-])[ \t]*$")
_ASIDE = re.compile(r"""'[^']*'|"[^"]*"|(?:^|(?<=\s))#.*""")
_JOINED = re.compile(r"[ \t]*(?:- )?[\w.-]+(:)(?=[^\s:/\\])")


def replace_lookalikes(text: str) -> str:
    """Return the text with every look-alike replaced by the character that it looks like."""
    return "".join(map(_replace_letter, text))


def _replace_letter(letter: str) -> str:
    if letter.isascii():
        return letter
    if letter in _NO_WIDTH or unicodedata.category(letter) == "Cf":
        return ""
    if unicodedata.category(letter) == "Zs":
        return " "
    seen = _PLAIN.get(letter) or unicodedata.normalize("NFKC", letter)  # full-width forms, ligatures
    return seen if seen.isascii() else letter


def name_lookalike(problem: Problem) -> Problem:
    """Return a problem that names the first look-alike in otherwise plain text; or else the problem as it is."""
    origin = problem.origin
    if not origin.line:
        return problem
    start = origin.column - 1
    marked = origin.source.get_line(origin.line)[start : start + origin.width]
    # Text of another alphabet stays what it is.
    if marked.isascii() or not replace_lookalikes(marked).isascii():
        return problem
    at = next(index for index, letter in enumerate(marked) if _replace_letter(letter) != letter)
    there = replace(origin, column=origin.column + at, width=1)
    return replace(problem, origin=there, message=_describe(marked[at]), suggestion=None)


def find_before(source: Source, position: int) -> Problem | None:
    """Return a problem for a look-alike or missing space in the lines before `position`, where the parser stopped."""
    last = source.find_origin(position, position + 1).line
    for line in range(last, max(last - _LINES_BACK, 0), -1):
        # Quoted text and comments mislead nobody; they keep their length here.
        text = _ASIDE.sub(lambda aside: "x" * len(aside[0]), source.get_line(line))
        start = source.find_start(line)
        for at, letter in enumerate(text):
            within_text = letter in _WITHIN_TEXT and not _OPENS.search(text[:at])
            if _replace_letter(letter) != letter and not within_text:
                return Problem(source.find_origin(start + at, start + at + 1), _describe(letter))
        if problem := find_missing_space(source.find_origin(start, start + 1)):
            return problem
    return None


def find_missing_space(origin: Origin) -> Problem | None:
    """Return a problem for a `key:value` at `origin` whose colon has no space after it; None if there is none."""
    joined = _JOINED.match(origin.source.get_line(origin.line)[origin.column - 1 :])
    if not joined:
        return None
    return Problem(replace(origin, column=origin.column + joined.start(1), width=1), "write a space after the colon")


def _describe(letter: str) -> str:
    seen = _replace_letter(letter)
    name = unicodedata.name(letter, "").lower()
    told = f"U+{ord(letter):04X}" + (f" ({name})" if name else "")
    if not seen:
        return f"there is an invisible character here, {told}; remove it"
    return f"found the character {told}; write {'a space' if seen == ' ' else f'`{seen}`'}"
