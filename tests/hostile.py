"""A report of runs whose names and specs try to be more than text."""

from pathlib import Path

from reports import arm, course

from gnflow.study.comparison import compare
from gnflow.study.report.write import write

NAMES = "<img src=x onerror=document.title='taken'>", "<b>\"'&{{7*7}}<script>document.title='taken'<"
COMMENT = "# </pre></script><svg onload=document.title='taken'><iframe src=javascript:alert(1)>"


def page(root: Path) -> Path:
    """The page."""
    runs = [
        arm(root, name, optimizer, course(0.3, 6, 0)) for name, optimizer in zip(NAMES, ("muon", "soap"), strict=True)
    ]
    for run in runs:
        spec = run.directory / "experiment.yaml"
        spec.write_text(f"{COMMENT}\n{spec.read_text()}")
    return write(compare(runs, (4.0, 3.5)), root / "hostile.html", NAMES[0]).page
