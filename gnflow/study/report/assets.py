"""The files that the page includes besides its content: Vega, a script and a style. Nothing is fetched."""

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
PLAIN = " =:/,;()'!*@+"  # allowed besides letters, digits and -._~, inside double quotes
PACKAGES = ("altair", "vl_convert")


def check_available() -> None:
    """Raise EnvironmentProblem if the packages that draw charts are not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"charts need {' and '.join(missing)}, which this environment does not have.\n"
            "Install them with `pip install 'gnflow[plots]'`; `gnflow compare` needs neither."
        )


def read_style() -> str:
    """Return the style sheet of the page."""
    return files(__package__).joinpath("page.css").read_text()


def read_script() -> str:
    """Return the script that draws the charts and handles the buttons."""
    return files(__package__).joinpath("page.js").read_text()


@cache
def bundle_vega() -> str:
    """Return Vega, Vega-Lite and vega-embed in one script, `vegaEmbed`, of about 0.9 MB."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", find_vegalite_version())


def find_vegalite_version() -> str:
    """Return the Vega-Lite version of Altair in the form that vl-convert uses: `6.4`."""
    import altair

    return ".".join(altair.VEGALITE_VERSION.split(".")[:2])


def draw_svg(spec: Mapping[str, object]) -> str:
    """Draw a specification with its data as SVG."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version=find_vegalite_version())
    return _renumber_clips(PLACES.sub(lambda place: LONG.sub(r"\1", place[0]), drawn))


def _renumber_clips(drawing: str) -> str:
    """Number the clipping paths of a picture from 0, since Vega continues the numbers of the picture before."""
    numbers = {name: f"clip{index}" for index, name in enumerate(dict.fromkeys(CLIPS.findall(drawing)))}
    return CLIPS.sub(lambda name: numbers[name[0]], drawing)


def draw_png(spec: Mapping[str, object]) -> bytes:
    """Draw a specification as PNG, with two pixels for each point."""
    import vl_convert

    return vl_convert.vegalite_to_png(json.dumps(spec), vl_version=find_vegalite_version(), scale=2)


def encode_data_uri(picture: str) -> str:
    """Return an SVG as a data URI."""
    return f"data:image/svg+xml,{quote(picture, safe=PLAIN)}"


def make_policy(*scripts: str) -> str:
    """Return a Content-Security-Policy that allows only these scripts and no request from the page.

    Vega compiles its expressions (`unsafe-eval`) and styles its tooltips (`unsafe-inline`).
    """
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src 'unsafe-eval' {hashes}; style-src 'unsafe-inline'; img-src data:"
