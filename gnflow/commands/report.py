"""`gnflow report RUN..`: write the comparison as one HTML page, with its charts as pictures beside it."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.study.comparison import compare
from gnflow.study.find import read_runs, report_unread
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
    """Write the page. Return 7 if a run was left out, else 0.

    Raises EnvironmentProblem if the packages that draw charts are missing, and SpecError like `compare`.
    """
    assets.check_available()
    from gnflow.study.report.write import write

    found = read_runs(runs)
    written = write(compare(found.runs, targets, reference, budget=budget, sigma=sigma), output, title)
    size = written.page.stat().st_size / 1e6
    print(f"{written.page}: {size:.1f} MB, {len(written.charts)} charts; as PNG and SVG in {written.pictures}/")
    return report_unread(found.unread)
