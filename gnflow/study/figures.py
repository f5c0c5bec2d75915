"""Format numbers for readers: `1.44M`, `2.6e+13`, `3 min 20 s`, `5.4x`, and a curve in one line."""

from collections.abc import Sequence
from math import ceil, floor, log10

BARS = "▁▂▃▄▅▆▇█"
LETTERS = "_.:-=+*#"
"""The bars of a terminal that has no others."""
MISSING = "-"
UNITS = ("", "k", "M", "G", "T", "P", "E")


def format_count(value: float | None) -> str:
    """Format a count to three digits: `512`, `131k`, `1.44M`, and powers of ten for larger ones."""
    if value is None:
        return MISSING
    if value < 999.5e9:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= 0.9995 * size:
                return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def choose_unit(values: Sequence[float]) -> tuple[float, str]:
    """Return one unit for a column of counts, by their geometric mean: `(1e9, "G")`; `(1.0, "")` for small ones."""
    logs = [log10(value) for value in values if value > 0]
    thousands = min(max(int(sum(logs) / len(logs) // 3), 0), len(UNITS) - 1) if logs else 0
    return 1000.0**thousands, UNITS[thousands]


def choose_time_unit(values: Sequence[float]) -> tuple[float, str]:
    """Return one unit for a column of seconds, by the largest: `(1.0, "s")`, `(60.0, "min")` or `(3600.0, "h")`."""
    longest = max(values, default=0.0)
    return (1.0, "s") if longest < 600 else (60.0, "min") if longest < 36_000 else (3600.0, "h")


def format_digits(value: float) -> str:
    """Format a number with three digits and without an exponent: `0.275`, `2.82`, `12.0`, `4,120`."""
    if value == 0 or abs(value) >= 999.5:
        return f"{value:,.0f}"
    places = max(0, 2 - floor(log10(abs(value))))
    return f"{value:.{places}f}"


def format_duration(seconds: float | None) -> str:
    """Format seconds: `9.4 s`, `3 min 20 s`, `2 h 05 min`, `4 days`."""
    if seconds is None:
        return MISSING
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} days"


def format_budget(axis: str, amount: float) -> str:
    """Format a cost on one axis: `3 min 20 s` for seconds, `1.44M` for the others."""
    return format_duration(amount) if axis == "seconds" else format_count(amount)


def format_age(seconds: float | None) -> str:
    """Format an age: `just now`, `12 min ago`, `3 h ago`, `5 days ago`."""
    if seconds is None:
        return MISSING
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds >= size and unit != "days"):
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def format_factor(value: float) -> str:
    """Format a factor: `5.4x`, `65x`."""
    return f"{value:.1f}x" if value < 9.95 else f"{value:.0f}x"


def format_ratio(value: float) -> str:
    """Format a factor or an end of its interval: `0.083`, `0.83`, `1.02`, `5.1`, `16`; two decimals near 1."""
    if 0 < value < 0.0995:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 1.995 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def format_range(low: float, high: float) -> str:
    """Format the two ends of an interval of factors: `0.83 to 1.02`."""
    return f"{format_ratio(low)} to {format_ratio(high)}"


def format_target(value: float) -> str:
    """Format a target loss as it was given, with at least two decimals: `3.40`, `3.375`."""
    short = f"{value:.2f}"
    return short if float(short) == value else f"{value:g}"


def format_loss(value: float | None) -> str:
    """Format a loss with four decimals."""
    return MISSING if value is None else f"{value:.4f}"


def draw_sparkline(values: Sequence[float], width: int = 60) -> str:
    """Draw a bar for each value, or for the last value of each group if there are more than `width`."""
    group = ceil(len(values) / width)
    shown = values[::-1][::group][::-1] if group else ()
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in shown)


def draw_skyline(values: Sequence[float], encoding: str = "utf-8") -> str:
    """Draw a bar for each value, from 0 up to the largest, and with LETTERS if the encoding has no bars."""
    try:
        BARS.encode(encoding)
        bars = BARS
    except UnicodeEncodeError:
        bars = LETTERS
    high = max(values, default=0.0)
    return "".join(bars[round(value / high * (len(bars) - 1)) if high > 0 else 0] for value in values)


def join_words(parts: Sequence[str]) -> str:
    """Join words: `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def format_plural(number: float, thing: str) -> str:
    """Format a number with its noun: `1 step`, `12 steps`."""
    return f"{number:.0f} {thing}" if number == 1 else f"{number:.0f} {thing}s"
