"""What is wrong with a spec: collected, then shown all at once."""

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
    """One mistake, in words, and where it is."""

    origin: Origin
    message: str
    key: str = ""
    """Dotted path of the value in the spec, where there is one."""
    suggestion: str | None = None
    """The nearest valid name."""

    def __str__(self) -> str:
        return f"{printable(str(self.origin))}: {self.sentence}{self.excerpt()}"

    @property
    def sentence(self) -> str:
        """The message and the suggestion."""
        return printable(self.message) + (f"; did you mean `{self.suggestion}`?" if self.suggestion else "")

    def excerpt(self) -> str:
        """The line, with a caret under the mistake; empty when the source as a whole is meant."""
        return excerpt(self.origin)

    def to_json(self) -> dict[str, Plain]:
        """For `--json`."""
        origin = self.origin.to_json()
        return {"origin": origin, "key": self.key, "message": printable(self.message), "suggestion": self.suggestion}


class SpecProblems(SpecError):
    """A spec that is not valid; its text holds every problem, of very many the first."""

    def __init__(self, problems: Sequence[Problem]):
        ordered = sorted(problems, key=lambda p: (p.origin.kind, p.origin.source.name, p.origin.line, p.origin.column))
        different = tuple(dict.fromkeys(ordered))
        more = (Problem(different[MOST].origin, "more problems follow"),) if len(different) > MOST else ()
        self.problems: tuple[Problem, ...] = different[:MOST] + more
        super().__init__(self.problems)

    def __str__(self) -> str:
        found = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n\n".join([*map(str, self.problems), found])


def excerpt(origin: Origin) -> str:
    """A new line with the text at `origin`, and under it a caret."""
    if not origin.line:
        return ""
    text, start = origin.source.line(origin.line), origin.column - 1
    cut = max(0, start - _WIDEST // 2) if len(text) > _WIDEST else 0
    shown = text[cut : cut + _WIDEST]
    pad = "".join("\t" if letter == "\t" else " " * _cells(letter) for letter in shown[: start - cut])
    marked = sum(map(_cells, shown[start - cut : start - cut + origin.width]))
    margin = "--set" if origin.kind == "set" else f"{origin.line:>5}"
    mark = f"{pad}{'^' * max(marked, 1)}"
    return f"\n{margin} | {printable(shown)}\n{' ' * len(margin)} | {mark}"


def shown(path: Path) -> str:
    """The path relative to the current directory where it lies below it."""
    relative = os.path.relpath(path)
    return str(path.absolute()) if relative.startswith("..") else relative


def printable(text: str) -> str:
    """The text with what a terminal would act upon replaced, and no secret in it."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", hide_secrets(text))


def _cells(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
