"""The problems of a spec, which are collected and then shown all at once."""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gnflow.errors import SpecError
from gnflow.secrets import hide_secrets
from gnflow.spec.tree import Origin, Plain

MOST = 100  # problems shown of one spec
_WIDEST = 100
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Problem:
    """One mistake in words, and its place."""

    origin: Origin
    message: str
    key: str = ""
    """The dotted path of the value in the spec, if there is one."""
    suggestion: str | None = None
    """The nearest valid name."""

    def __str__(self) -> str:
        return f"{make_printable(str(self.origin))}: {self.sentence}{self.quote()}"

    @property
    def sentence(self) -> str:
        """The message and the suggestion."""
        return make_printable(self.message) + (f"; did you mean `{self.suggestion}`?" if self.suggestion else "")

    def quote(self) -> str:
        """Return the line with a caret under the mistake; an empty text if the problem is the source as a whole."""
        return quote_origin(self.origin)

    def to_json(self) -> dict[str, Plain]:
        """Return the fields for `--json`."""
        origin = self.origin.to_json()
        return {
            "origin": origin,
            "key": self.key,
            "message": make_printable(self.message),
            "suggestion": self.suggestion,
        }


class SpecProblems(SpecError):
    """An invalid spec. Its text shows every problem, up to a limit."""

    def __init__(self, problems: Sequence[Problem]):
        ordered = sorted(problems, key=lambda p: (p.origin.kind, p.origin.source.name, p.origin.line, p.origin.column))
        different = tuple(dict.fromkeys(ordered))
        more = (Problem(different[MOST].origin, "more problems follow"),) if len(different) > MOST else ()
        self.problems: tuple[Problem, ...] = different[:MOST] + more
        super().__init__(self.problems)

    def __str__(self) -> str:
        found = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n\n".join([*map(str, self.problems), found])


def quote_origin(origin: Origin) -> str:
    """Return the line of text at `origin` and a caret under it, after a line break."""
    if not origin.line:
        return ""
    text, start = origin.source.get_line(origin.line), origin.column - 1
    cut = max(0, start - _WIDEST // 2) if len(text) > _WIDEST else 0
    shown = text[cut : cut + _WIDEST]
    pad = "".join("\t" if letter == "\t" else " " * _count_cells(letter) for letter in shown[: start - cut])
    marked = sum(map(_count_cells, shown[start - cut : start - cut + origin.width]))
    margin = "--set" if origin.kind == "set" else f"{origin.line:>5}"
    mark = f"{pad}{'^' * max(marked, 1)}"
    return f"\n{margin} | {make_printable(shown)}\n{' ' * len(margin)} | {mark}"


def shorten_path(path: Path) -> str:
    """Return the path relative to the current directory if it is inside it, or else the absolute path."""
    relative = os.path.relpath(path)
    return str(path.absolute()) if relative.startswith("..") else relative


def make_printable(text: str) -> str:
    """Return the text without secrets, and with control characters replaced."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", hide_secrets(text))


def _count_cells(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
