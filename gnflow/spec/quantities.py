"""Parse numbers with units, commas or powers, to suggest the plain number that a spec takes."""

import re

_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "g": 10**9, "t": 10**12, "%": 0.01}
_SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "seconds": 1, "m": 60, "min": 60, "mins": 60, "minutes": 60, "h": 3600,
            "hr": 3600, "hours": 3600, "d": 86400, "days": 86400}  # fmt: skip
_BYTES = {f"{prefix}{ending}": base**power for power, prefix in enumerate(("", "k", "m", "g", "t"))
          for ending, base in (("b", 1000), ("ib", 1024))} | {"k": 2**10, "m": 2**20, "g": 2**30}  # fmt: skip
# What one of a spec's own units is, for the suffixes that measure the same.
_UNITS = {"minutes": (_SECONDS, 60), "seconds": (_SECONDS, 1), "MiB": (_BYTES, 2**20)}
_WRITTEN = re.compile(r"([-+]?[\d.,_ ]*\d\.?(?:e[-+]?\d+)?) *([a-z%]*)")
_COUNTED = re.compile(r" *(?:tokens?|steps?|rows?|its|iterations?)$")
_POWER = re.compile(r"(\d+) *(?:\*\*|\^) *(\d{1,2})")
_RATIO = re.compile(r"([\d.]+) */ *([\d.]+)")


def parse_quantity(text: str, unit: str | None, whole: bool) -> str | None:
    """Convert `1M` to `1000000`, `10min` to `10` (unit minutes), `2**20` to `1048576`; return None for other text."""
    text = _COUNTED.sub("", text.strip().lower())
    if found := _POWER.fullmatch(text):
        base = _parse_float(found[1])
        try:
            return _format_number(base ** int(found[2]), whole) if base is not None else None
        except OverflowError:
            return None
    if found := _RATIO.fullmatch(text):
        over, under = _parse_float(found[1]), _parse_float(found[2])
        return _format_number(over / under, whole) if over is not None and under else None
    found = _WRITTEN.fullmatch(text)
    number = _parse_float(re.sub(r"[, _](?=\d{3}(?:\D|$))", "", found[1])) if found else None
    if found is None or number is None:
        return None
    suffixes, own = _UNITS.get(unit or "", (_MULTIPLES, 1))
    if not found[2]:
        return _format_number(number, whole)
    if found[2] not in suffixes:
        return None
    converted = number * suffixes[found[2]] / own
    return _format_number(float(round(converted)) if whole and own != 1 else converted, whole)


def _parse_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _format_number(number: float, whole: bool) -> str | None:
    if not abs(number) < 2**63 or (whole and not number.is_integer()):
        return None
    return str(int(number)) if number.is_integer() else f"{number:.6g}"
