"""Pieces of HTML. What is not Markup yet becomes it by being escaped, here and nowhere else."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import NewType

Markup = NewType("Markup", str)
NOTHING = Markup("")


def text(value: object) -> Markup:
    """Any text, escaped."""
    return Markup(html.escape(str(value)))


def tag(name: str, *content: Markup, **attributes: str) -> Markup:
    """An element; `class_` is written `class`."""
    said = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{said}>{''.join(content)}</{name}>")


def paragraph(sentence: str, kind: str = "note") -> Markup:
    """Nothing for an empty one."""
    return tag("p", text(sentence), class_=kind) if sentence else NOTHING


def listing(items: Iterable[str]) -> Markup:
    """Points, one below the other."""
    return tag("ul", *(tag("li", text(item)) for item in items))


def table(columns: Sequence[str], rows: Iterable[Sequence[Markup]], words: int) -> Markup:
    """The first `words` columns hold words, the others figures; it scrolls by itself where it is too wide."""
    kinds = ["word" if index < words else "figure" for index in range(len(columns))]
    head = tag("tr", *(tag("th", text(name), class_=kind) for name, kind in zip(columns, kinds, strict=True)))
    body = [tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="wide")


def embedded(tree: object, name: str) -> Markup:
    """JSON for a script of the page; no text in it can end the element."""
    content = json.dumps(tree, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return tag("script", Markup(content), type="application/json", id=name)
