"""Explain errors of the YAML scanner in words for the person who wrote the file."""

import re

from ruamel.yaml.error import MarkedYAMLError, StreamMark

_UNCLOSED = "a {} that opens here is never closed"
_SECOND_COLON = "a second `:` on one line; put text that holds `: ` in quotes"
_AT_THE_START = {
    "a flow sequence": _UNCLOSED.format("`[`"),
    "a flow mapping": _UNCLOSED.format("`{`"),
    "a quoted scalar": _UNCLOSED.format("quote"),
}
_SENTENCES = {
    r"found character '\\t' that cannot start any token": "a tab is not allowed here; indent with spaces",
    r"found character '(.)' that cannot start any token": "text that begins with `{}` must be in quotes",
    r"expected <block end>, but found '-'": "wrong indentation, or a list item where a key was expected",
    r"expected <block end>, but found '<block (?:mapping|sequence) start>'": "wrong indentation",
    r"expected <block end>, but found '\?'": "wrong indentation, or a key where a list item was expected",
    r"expected <block end>, but found '<scalar>'": "unexpected text after the end of a value",
    r"expected <block end>, but found '([\]}])'": "`{}` was never opened",
    r"expected <block end>, but found '(.+)'": "`{}` is out of place",
    r"expected the node content, but found '(.+)'": "expected a value, found `{}`",
    r"found unknown escape character '(.)'": "`\\{}` means nothing in double quotes; single quotes take text as it is",
    r"expected ',' or '([\]}])', but got '(.+)'": "expected `,` or `{}`, found `{}`",
    r"sequence entries are not allowed here": "a list of `- ` items must begin on a new line",
    r"expected alphabetic or numeric character": "expected a name after `&` or `*`",
    r"expected '<document start>', but found '(.+)'": "expected the end of the file, found `{}`",
}


def explain_error(error: MarkedYAMLError, text: str) -> tuple[str, int | None]:
    """Return a sentence about the error, and the position in `text` that it refers to."""
    problem, context = str(error.problem), str(error.context)
    opened, mark = _find_index(error.context_mark), _find_index(error.problem_mark)
    at_the_end = "stream end" in problem or "end of stream" in problem or mark is None or mark >= len(text.rstrip())
    if at_the_end and "a flow node" in context:
        opened = max(text.rfind("["), text.rfind("{"))
        return _UNCLOSED.format(f"`{text[opened]}`"), opened
    if at_the_end and opened is not None:
        for what, sentence in _AT_THE_START.items():
            if what in context or (what == "a quoted scalar" and "-quoted scalar" in context):
                return sentence, opened
    if "mapping values are not allowed here" in problem:
        before = text[:mark].rpartition("\n")[2]
        return (_SECOND_COLON if re.search(r":\s", before) else "wrong indentation"), mark
    if "could not find expected ':'" in problem:
        return "expected `:` and a value after this key", opened
    for pattern, sentence in _SENTENCES.items():
        if found := re.search(pattern, problem):
            sentence = re.sub("`<(?:stream|document) end>`", "the end of the file", sentence.format(*found.groups()))
            if opened is not None and ("a flow sequence" in context or "a flow mapping" in context):
                line = text.count("\n", 0, opened) + 1
                sentence += f"; the `{text[opened]}` on line {line} is still open"
            return sentence, mark
    return f"not valid YAML: {problem}", mark


def _find_index(mark: object) -> int | None:
    return mark.index if isinstance(mark, StreamMark) else None
