"""Parse plain scalars by the core schema of YAML 1.2, and refuse forms that YAML readers interpret differently."""

import math
import re

from gnflow.spec.tree import Value

_CONSTANTS: dict[str, Value] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DISPUTED = {
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?": "a date to some readers of YAML; put it in quotes",
    r"[-+]?0[0-9]+": "a number in base 8 to some readers of YAML; remove the leading zero",
    r"[-+]?[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?": "a number in base 60 to some readers of YAML; put it in quotes",
    r"[-+]?[0-9][0-9_.]*_[0-9_.]*(?:[eE][-+]?[0-9]+)?": "a number to some readers of YAML, text to others; remove `_`",
    r"[-+]?0b[01_]+": "a number to some readers of YAML, text to others; write it in base 10",
}
_LARGEST = 2**63


class Refused(ValueError):
    """An error for a scalar that is not accepted. Its text is the reason."""


def parse_scalar(text: str) -> Value:
    """Return the value of an unquoted scalar. Raises Refused for a disputed or too large one."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _WHOLE.fullmatch(text):
        if len(text) > 25 or not -_LARGEST <= (whole := int(text, _find_base(text))) < _LARGEST:
            raise Refused("this whole number does not fit in 64 bits")
        return whole
    for pattern, complaint in _DISPUTED.items():
        if re.fullmatch(pattern, text):
            raise Refused(f"`{text}` is {complaint}")
    if _NOT_FINITE.fullmatch(text):
        raise Refused(f"expected a finite number, got `{text}`")
    if _NUMBER.fullmatch(text):
        if not math.isfinite(number := float(text)):
            raise Refused(f"`{text}` is too large for a number")
        return number
    return text


def _find_base(text: str) -> int:
    return {"0o": 8, "0x": 16}.get(text[:2], 10)
