"""`gnflow report RUN..`: the comparison as one HTML page, with its charts as pictures beside it."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.study.comparison import compare
from gnflow.study.find import find
from gnflow.study.report import assets


def report(
    runs: Sequence[Path], *, output: Path, targets: Sequence[float], reference: str | None, title: str | None
) -> int:
    """Writes the page. Raises EnvironmentProblem without the packages that draw, SpecError as `compare` does."""
    assets.check_available()
    from gnflow.study.report.write import write

    written = write(compare([find(run) for run in runs], targets, reference), output, title)
    size = written.page.stat().st_size / 1e6
    print(f"{written.page}: {size:.1f} MB, {len(written.charts)} charts; as PNG and SVG in {written.pictures}/")
    return 0
