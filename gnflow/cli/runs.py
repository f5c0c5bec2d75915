"""The verbs that take runs."""

from pathlib import Path
from typing import Annotated

import typer

from gnflow import streams
from gnflow.cli.app import Budget, Json, Reference, Run, Runs, Sigma, Targets, app


@app.command()
def show(run: Run, json: Json = False) -> None:
    """Show the settings, the state and the results of one run."""
    from gnflow.commands.show import show

    raise typer.Exit(show(run, json=json))


@app.command("list")
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
    everything: Annotated[bool, typer.Option("--all", help="Print all tables.")] = False,
    json: Json = False,
) -> None:
    """Compare costs to a target, or losses at equal budgets."""
    from gnflow.commands.compare import compare

    aims = targets or ()
    raise typer.Exit(
        compare(runs, targets=aims, reference=reference, budget=budget, sigma=sigma, everything=everything, json=json)
    )


@app.command()
def report(
    runs: Runs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Write the HTML page to this file.")] = Path(
        "report.html"
    ),
    targets: Targets = None,
    reference: Reference = None,
    budget: Budget = None,
    sigma: Sigma = None,
    title: Annotated[
        str | None, typer.Option(help="Give the page this title. Default: the arms and the target.")
    ] = None,
) -> None:
    """Write a comparison as an HTML page, and its charts as pictures."""
    from gnflow.commands.report import report

    streams.tolerate_failures()
    aims = targets or ()
    raise typer.Exit(
        report(runs, output=output, targets=aims, reference=reference, title=title, budget=budget, sigma=sigma)
    )


@app.command()
def rerun(
    run: Run,
    keep: Annotated[
        Path | None,
        typer.Option(help="Repeat the run in this new directory, and keep it.", metavar="DIR"),
    ] = None,
    json: Json = False,
) -> None:
    """Repeat a run, and say whether the results agree."""
    from gnflow.commands.rerun import rerun

    streams.tolerate_failures()
    raise typer.Exit(rerun(run, keep=keep, json=json))


@app.command()
def export(
    run: Run,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The new directory of the model.", show_default=False)
    ],
    average: Annotated[
        bool, typer.Option("--average", help="Export the average of the weights (training.average).")
    ] = False,
) -> None:
    """Write a run's model as a directory that transformers loads."""
    from gnflow.commands.export import export

    streams.tolerate_failures()
    raise typer.Exit(export(run, directory, average=average))


@app.command()
def replay(
    run: Run,
    step: Annotated[int, typer.Argument(metavar="STEP", help="The number of the step, from 1.")],
    json: Json = False,
) -> None:
    """Repeat one step, and name the first tensor that is not finite."""
    from gnflow.commands.replay import replay

    raise typer.Exit(replay(run, step, json=json))


@app.command()
def track(
    runs: Runs,
    to: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Fill this tracker. Default: that of each run."),
    ] = None,
) -> None:
    """Fill MLflow, or another tracker, with the records of runs."""
    from gnflow.commands.track import track

    streams.tolerate_failures()
    raise typer.Exit(track(runs, to))
