"""What the figures share: the colours of two themes, and a few shapes as SVG."""

from typing import NamedTuple


class Look(NamedTuple):
    """The colours of a theme. Blue and orange differ for every kind of colour vision, and in grey."""

    paper: str
    ink: str
    grid: str
    newton: str
    others: str


LOOKS = {
    "light": Look("#ffffff", "#222222", "#dddddd", "#0072B2", "#D55E00"),
    "dark": Look("#0d1117", "#e6e6e6", "#3a3f46", "#56B4E9", "#E69F00"),
}


def begin(width: float, height: float, look: Look) -> list[str]:
    """Return the first elements of a figure of this size in pixels."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{width:g}" height="{height:g}" fill="{look.paper}"/>',
    ]


def end(parts: list[str]) -> str:
    """Return the text of a figure."""
    return "\n".join([*parts, "</svg>"]) + "\n"


def write(x: float, y: float, text: str, colour: str, anchor: str) -> str:
    """Write a text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{text}</text>'


def draw_point(x: float, y: float, newton: bool, colour: str) -> str:
    """Draw a circle for a Gauss-Newton method, and a square for another."""
    if newton:
        return f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="{colour}" fill-opacity="0.75"/>'
    return f'<rect x="{x - 4:.1f}" y="{y - 4}" width="8" height="8" fill="{colour}" fill-opacity="0.75"/>'
