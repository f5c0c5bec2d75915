"""What the page is made of besides its content: Vega, a script, a style. Nothing is fetched."""

import base64
import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from urllib.parse import quote

from gnflow.errors import EnvironmentProblem

PLACES = re.compile(r'(?<= )(?:d|transform)="[^"]*"')
LONG = re.compile(r"(\.\d\d)\d+")  # finer than a hundredth of a pixel
CLIPS = re.compile(r'(?:(?<= id=")|(?<=url\(#))clip\d+\b')
PLAIN = " =:/,;()'!*@+"  # besides letters, digits and -._~; inside double quotes
PACKAGES = ("altair", "vl_convert")


def check_available() -> None:
    """Raises EnvironmentProblem when the packages that draw charts are not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"charts need {' and '.join(missing)}, not installed here.\n"
            "Install them with `pip install 'gnflow[plots]'`; `gnflow compare` needs neither."
        )


def style() -> str:
    """Of the whole page."""
    return files(__package__).joinpath("page.css").read_text()


def script() -> str:
    """Draws the charts and hears the buttons."""
    return files(__package__).joinpath("page.js").read_text()


@cache
def vega() -> str:
    """Vega, Vega-Lite and vega-embed, all in `vegaEmbed`: about 0.9 MB."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vegalite())


def vegalite() -> str:
    """The version that Altair writes specifications for, as vl-convert calls it: `6.4`."""
    import altair

    return ".".join(altair.VEGALITE_VERSION.split(".")[:2])


def svg(spec: Mapping[str, object]) -> str:
    """A specification with its data, drawn."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version=vegalite())
    return _renumbered(PLACES.sub(lambda place: LONG.sub(r"\1", place[0]), drawn))


def _renumbered(drawing: str) -> str:
    """Vega counts its clipping paths on from one picture to the next; here each picture's begin at 0."""
    numbers = {name: f"clip{index}" for index, name in enumerate(dict.fromkeys(CLIPS.findall(drawing)))}
    return CLIPS.sub(lambda name: numbers[name[0]], drawing)


def png(spec: Mapping[str, object]) -> bytes:
    """The same in pixels, two for each point."""
    import vl_convert

    return vl_convert.vegalite_to_png(json.dumps(spec), vl_version=vegalite(), scale=2)


def data_uri(picture: str) -> str:
    """An SVG as the address of an image."""
    return f"data:image/svg+xml,{quote(picture, safe=PLAIN)}"


def policy(*scripts: str) -> str:
    """A Content-Security-Policy under which these scripts run, nothing else does, and no request leaves the page.

    Vega compiles its expressions (`unsafe-eval`) and styles its tooltips (`unsafe-inline`).
    """
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src 'unsafe-eval' {hashes}; style-src 'unsafe-inline'; img-src data:"
