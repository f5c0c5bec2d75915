"""Make pieces of HTML. Only this module escapes text and turns it into Markup."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import NewType

Markup = NewType("Markup", str)
NOTHING = Markup("")


def escape(value: object) -> Markup:
    """Escape any text."""
    return Markup(html.escape(str(value)))


def make_tag(name: str, *content: Markup, **attributes: str) -> Markup:
    """Make an element; `class_` is written `class`."""
    said = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{said}>{''.join(content)}</{name}>")


def make_paragraph(sentence: str, kind: str = "note") -> Markup:
    """Make a paragraph; nothing if it would be empty."""
    return make_tag("p", escape(sentence), class_=kind) if sentence else NOTHING


def make_list(items: Iterable[str]) -> Markup:
    """Make a list of points."""
    return make_tag("ul", *(make_tag("li", escape(item)) for item in items))


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Markup]], words: int) -> Markup:
    """Make a table whose first `words` columns hold words and the others figures. A wide table scrolls by itself."""
    kinds = ["word" if index < words else "figure" for index in range(len(columns))]
    head = make_tag(
        "tr", *(make_tag("th", escape(name), class_=kind) for name, kind in zip(columns, kinds, strict=True))
    )
    body = [
        make_tag("tr", *(make_tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    return make_tag("div", make_tag("table", make_tag("thead", head), make_tag("tbody", *body)), class_="wide")


def embed_json(tree: object, name: str) -> Markup:
    """Embed JSON in a script element; no text in it can end the element."""
    content = json.dumps(tree, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return make_tag("script", Markup(content), type="application/json", id=name)
