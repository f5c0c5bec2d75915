"""Show the last sheet of samples of each run: its images, their captions, and how many are right."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path

from gnflow.study.comparison import Comparison
from gnflow.study.report.html import Markup, escape, make_paragraph, make_tag
from gnflow.study.report.provenance import shorten_directory
from gnflow.study.report.results import make_swatches
from gnflow.track.description import SAMPLES, read_json
from gnflow.train.run import Run

LARGEST = 1 << 20  # largest number of bytes of a picture in the page


def make_samples(comparison: Comparison) -> Iterator[Markup]:
    """Make a figure for each run that has a sheet; nothing if none has."""
    dots = make_swatches(comparison)
    for arm in comparison.arms:
        for run in arm.runs:
            if sheet := _find_last_sheet(run):
                yield _make_figure(sheet, Markup(dots[arm.name] + escape(f", seed {run.experiment.training.seed}")))


def _find_last_sheet(run: Run) -> Path | None:
    """Find the last sheet of a run. Its text is in a file of the same name."""
    whole = [path for path in (run.directory / SAMPLES).glob("step_*.png") if path.with_suffix(".json").is_file()]
    return max(whole, default=None)


def _make_figure(sheet: Path, name: Markup) -> Markup:
    about = read_json(sheet.with_suffix(".json"))
    prompts = [str(sample["prompt"]) for sample in _select_mappings(about.get("samples"))]
    said = (
        f"Step {about.get('step')}, guidance {about.get('guidance')}, temperature {about.get('temperature')}. "
        f"{len(prompts)} held-out images in codes and, below each, the image drawn for its caption."
        f"{_describe_shares(about)}"
    )
    return make_tag(
        "figure",
        make_tag("figcaption", make_tag("h3", name), make_paragraph(said)),
        _make_picture(sheet),
        make_paragraph(f"Captions, row by row: {'; '.join(prompts)}.", "prompts"),
    )


def _make_picture(sheet: Path) -> Markup:
    content = sheet.read_bytes()
    if len(content) > LARGEST:
        return make_paragraph(
            f"The sheet, {len(content) / 1e6:.1f} MB, is in {shorten_directory(sheet.parents[1])}/{SAMPLES}."
        )
    address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Markup(f'<img class="sheet" alt="held-out images over those drawn" src="{address}">')


def _describe_shares(about: Mapping[str, object]) -> str:
    """Say how many images are right, if the images have labels."""
    match about.get("figures"):
        case {
            "samples/recognised": float(drawn), "samples/captioned": float(captioned),
            "samples/classifier_accuracy": float(right),
        }:  # fmt: skip
            return (
                f" A nearest-neighbour classifier, right about {right:.0%} of held-out images, recognises {drawn:.0%} "
                f"of those drawn as the digit asked for; {captioned:.0%} of the model's own captions name it right."
            )
        case _:
            return ""


def _select_mappings(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
