"""`gnflow report RUN..`: write the comparison as one HTML page, with its charts as pictures beside it."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.study.comparison import compare
from gnflow.study.find import exit_code, readable
from gnflow.study.report import assets


def report(
    runs: Sequence[Path],
    *,
    output: Path,
    targets: Sequence[float],
    reference: str | None,
    title: str | None,
    budget: float | None = None,
    sigma: float | None = None,
) -> int:
    """Write the page. Returns 7 if a run had to be left out.

    Raises EnvironmentProblem if the packages that draw charts are missing, and SpecError like `compare`.
    """
    assets.check_available()
    from gnflow.study.report.write import write

    found = readable(runs)
    written = write(compare(found.runs, targets, reference, budget=budget, sigma=sigma), output, title)
    size = written.page.stat().st_size / 1e6
    print(f"{written.page}: {size:.1f} MB, {len(written.charts)} charts; as PNG and SVG in {written.pictures}/")
    return exit_code(found.unread)
