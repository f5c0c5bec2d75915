"""The verbs of a study."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from gnflow import streams
from gnflow.cli.app import Json, RunDir, Sets, Spec, app

study = typer.Typer(help="Compare several methods, with tuning, seeds and a DVC pipeline.", no_args_is_help=True)
app.add_typer(study, name="study")
Measure = Literal["parameters", "tokens", "flops"]
Study = Annotated[Path, typer.Argument(metavar="STUDY", help="A folder with a study.yaml.")]


@study.command("plan")
def plan_study(folder: Study, json: Json = False) -> None:
    """Show the runs of a study and what they cost at most."""
    from gnflow.commands.study import plan_study

    raise typer.Exit(plan_study(folder, json=json))


@study.command("pipeline")
def write_pipeline(
    folder: Study,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, and exit with code 3 unless the file is up to date.")
    ] = False,
) -> None:
    """Write the study's dvc.yaml, with one stage for each run."""
    from gnflow.commands.study import write_pipeline

    streams.tolerate_failures()
    raise typer.Exit(write_pipeline(folder, check=check))


@study.command("choose")
def choose_values(
    folder: Study,
    arm: Annotated[str, typer.Argument(metavar="ARM", help="The name of an arm of the study.")],
) -> None:
    """Write the spec of an arm's best trial to tuned/."""
    from gnflow.commands.study import choose_values

    streams.tolerate_failures()
    raise typer.Exit(choose_values(folder, arm))


@study.command("widen")
def widen_space(
    folder: Study,
    arms: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARM]...", help="The arms to add trials to. Default: all that have trials."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials to add to each arm. Default: half as many as it has.")
    ] = None,
) -> None:
    """Add trials beyond the ranges whose best value lies at an edge."""
    from gnflow.commands.study import widen

    streams.tolerate_failures()
    raise typer.Exit(widen(folder, arms or (), trials=trials))


@study.command("scaling")
def fit_scales(
    folder: Study,
    against: Annotated[
        Measure | None, typer.Option(help="The size of a scale that the law is in. Default: the one that differs.")
    ] = None,
    at: Annotated[
        list[float] | None,
        typer.Option(metavar="SIZE", help="Predict the losses at this size. The option can be repeated."),
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the fit to this .svg or .png file.")] = None,
    json: Json = False,
) -> None:
    """Fit one scaling law to the methods of a study over its scales."""
    from gnflow.commands.scaling import scaling

    raise typer.Exit(scaling(folder, against=against, at=at or (), chart=chart, json=json))


@study.command("jobs")
def list_jobs(folder: Study, json: Json = False) -> None:
    """Print the commands of a study that are ready, and what the others wait for."""
    from gnflow.commands.work import list_jobs

    raise typer.Exit(list_jobs(folder, json=json))


@study.command("work")
def work(
    folder: Study,
    on: Annotated[
        Literal["processes", "ray"], typer.Option(help="Run commands on this machine, or on Ray (RAY_ADDRESS).")
    ] = "processes",
    slots: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of commands at a time. Default: one for each GPU, or for each core if there is none."
        ),
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Number of times that a killed or stopped run is resumed.")] = 3,
) -> None:
    """Run what is left of a study, several runs at a time, and record it in DVC."""
    from gnflow.commands.work import work

    streams.tolerate_failures()
    raise typer.Exit(work(folder, on=on, slots=slots, retries=retries))


@study.command("run")
def run_job(
    spec: Spec,
    sets: Sets = None,
    run_dir: RunDir = None,
) -> None:
    """Run one run of a study, like `run --supersede`. Divergence counts as a result (exit 0)."""
    from gnflow.commands.study import run_job

    streams.tolerate_failures()
    raise typer.Exit(run_job(spec, sets=sets or (), run_dir=run_dir))
