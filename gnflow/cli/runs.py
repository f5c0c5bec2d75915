"""The verbs that take runs."""

from pathlib import Path
from typing import Annotated

import typer

from gnflow import streams
from gnflow.cli.app import Budget, Json, Reference, Run, Runs, Sigma, Targets, app


@app.command()
def show(run: Run, json: Json = False) -> None:
    """Show one run."""
    from gnflow.commands.show import show

    raise typer.Exit(show(run, json=json))


@app.command(name="list")
def list_runs(json: Json = False) -> None:
    """List the runs of this project."""
    from gnflow.commands.list import list_runs

    raise typer.Exit(list_runs(json=json))


@app.command()
def compare(
    runs: Runs,
    targets: Targets = None,
    reference: Reference = None,
    budget: Budget = None,
    sigma: Sigma = None,
    json: Json = False,
) -> None:
    """Compare what runs needed to reach a target, or their losses at equal budgets."""
    from gnflow.commands.compare import compare

    raise typer.Exit(compare(runs, targets=targets or (), reference=reference, budget=budget, sigma=sigma, json=json))


@app.command()
def report(
    runs: Runs,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML page to write.")] = Path("report.html"),
    targets: Targets = None,
    reference: Reference = None,
    budget: Budget = None,
    sigma: Sigma = None,
    title: Annotated[
        str | None, typer.Option(help="Of the page. Default: the arms and the target.", show_default=False)
    ] = None,
) -> None:
    """Write the comparison as one HTML page, its charts as PNG and SVG."""
    from gnflow.commands.report import report

    streams.dispense()
    aims = targets or ()
    raise typer.Exit(
        report(runs, output=output, targets=aims, reference=reference, title=title, budget=budget, sigma=sigma)
    )


@app.command()
def rerun(
    run: Run,
    keep: Annotated[
        Path | None, typer.Option(help="Repeat it here, and leave it there.", metavar="DIR", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Repeat a run from its own directory; say whether it agrees."""
    from gnflow.commands.rerun import rerun

    streams.dispense()
    raise typer.Exit(rerun(run, keep=keep, json=json))


@app.command()
def replay(
    run: Run,
    step: Annotated[int, typer.Argument(metavar="STEP", help="The step, from 1.", show_default=False)],
    json: Json = False,
) -> None:
    """Take one step of a run again, eagerly; name the first tensor that is not finite."""
    from gnflow.commands.replay import replay

    raise typer.Exit(replay(run, step, json=json))


@app.command()
def track(runs: Runs) -> None:
    """Mirror runs to MLflow, or all below a directory; refills it."""
    from gnflow.commands.track import track

    streams.dispense()
    raise typer.Exit(track(runs))
