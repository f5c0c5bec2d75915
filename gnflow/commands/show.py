"""`gnflow show RUN`: one run's spec, state and last figures."""

import json as json_text
from pathlib import Path

from rich.console import Console

from gnflow.spec.load import resolved
from gnflow.study.find import find


def show(run: Path, *, json: bool) -> int:
    """Prints the resolved spec, the summary and the last recorded step of a run."""
    found = find(run)
    rows = found.metrics.to_dicts()
    last = {key: value for key, value in rows[-1].items() if value is not None} if rows else {}
    checkpoints = sorted(path.name for path in (found.directory / "checkpoints").glob("step_*"))
    if json:
        content = {
            "directory": str(found.directory),
            "experiment": found.experiment.model_dump(mode="json"),
            "summary": found.summary,
            "last": last,
            "checkpoints": checkpoints,
        }
        print(json_text.dumps(content, indent=2))
        return 0
    console = Console(highlight=False)
    console.print(f"[bold]{found.directory}[/bold]  {found.summary.get('status', 'unfinished')}", soft_wrap=True)
    console.print(resolved(found.experiment), markup=False)
    for key, value in (found.summary or last).items():
        console.print(f"{key:<22} {value}", markup=False)
    console.print(f"{'checkpoints':<22} {', '.join(checkpoints) or 'none'}", markup=False, soft_wrap=True)
    return 0
