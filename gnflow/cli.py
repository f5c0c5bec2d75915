"""`gnflow`: the verbs. Each imports its command only when it is called."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from gnflow import faults, streams
from gnflow.errors import GnflowError
from gnflow.secrets import without_secrets

app = typer.Typer(
    name="gnflow",
    help="Declarative experiments with second-order optimizers for LLM pretraining.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec file.", show_default=False)]
Specs = Annotated[list[Path], typer.Argument(metavar="SPEC", help="Spec files.", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one value, as in training.seed=3. Repeatable.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """The entry point: exit codes as in the README, no traceback for what the user can act on."""
    # Looking for pydantic plug-ins in every installed distribution takes longer than checking a spec.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    streams.settle()
    try:
        try:
            app(prog_name="gnflow")
        finally:
            streams.flush()
    except GnflowError as error:
        print(without_secrets(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader has left, as `head` does
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        print(without_secrets(traceback.format_exc()), file=sys.stderr)
        print("This is a fault in gnflow. Please report it, with the lines above and the spec.", file=sys.stderr)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"gnflow {version('gnflow')}")
        raise typer.Exit


@app.callback()
def gnflow(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Declarative experiments with second-order optimizers for LLM pretraining."""
    try:
        faults.arm(os.environ.get(faults.VARIABLE, ""))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=faults.VARIABLE) from None


@app.command()
def run(
    spec: Spec,
    sets: Sets = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to put the run. Default: runs/<name>.", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin again, even if there is a run to resume.")] = False,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Move a run of another spec aside, to .superseded/; resume one of this.")
    ] = False,
) -> None:
    """Plan, compile and run a spec, or resume its interrupted run."""
    from gnflow.commands.run import run

    streams.dispense()
    raise typer.Exit(run(spec, sets=sets or (), run_dir=run_dir, fresh=fresh, supersede=supersede))


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the spec and of its run.", show_default=False)],
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="As in optimizer.kind. Default: gauss_newton.", show_default=False),
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--from", metavar="SPEC", help="A spec to begin with.", show_default=False)
    ] = None,
) -> None:
    """Write a spec to begin with, every value explained."""
    from gnflow.commands.new import new

    streams.dispense()
    raise typer.Exit(new(name, optimizer=optimizer, base=base))


@app.command()
def check(specs: Specs, sets: Sets = None, json: Json = False) -> None:
    """Validate specs; every problem at once, exit code 3."""
    from gnflow.commands.check import check

    raise typer.Exit(check(specs, sets=sets or (), json=json))


@app.command()
def plan(spec: Spec, sets: Sets = None, json: Json = False) -> None:
    """Show what a run would do and cost; nothing is allocated."""
    from gnflow.commands.plan import plan

    raise typer.Exit(plan(spec, sets=sets or (), json=json))


@app.command()
def explain(
    spec: Spec,
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="For example optimizer.inner.", show_default=False)
    ] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Show a value, its meaning, and the line that set it."""
    from gnflow.commands.explain import explain

    raise typer.Exit(explain(spec, key, sets=sets or (), json=json))


@app.command()
def verify(specs: Specs, sets: Sets = None, json: Json = False) -> None:
    """Check derivatives and optimizers of specs, on small copies."""
    from gnflow.commands.verify import verify

    raise typer.Exit(verify(specs, sets=sets or (), json=json))


@app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to this file.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of a spec, for editors."""
    from gnflow.commands.schema import schema

    if output is not None:
        streams.dispense()
    raise typer.Exit(schema(output))


@app.command()
def prepare(specs: Specs, sets: Sets = None) -> None:
    """Fetch and tokenize the data of specs; `run` does it when needed."""
    from gnflow.commands.prepare import prepare

    streams.dispense()
    raise typer.Exit(prepare(specs, sets=sets or ()))


Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or its name.", show_default=False)]
Targets = Annotated[
    list[float] | None,
    typer.Option(help="Held-out loss to reach. Repeatable. Default: the runs' own.", show_default=False),
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="ARM", help="The arm to compare to. Default: the one with fewest steps.", show_default=False),
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run directories, or their names.", show_default=False)]


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
    target: Targets = None,
    reference: Reference = None,
    json: Json = False,
) -> None:
    """Compare what runs needed to reach a target, over seeds."""
    from gnflow.commands.compare import compare

    raise typer.Exit(compare(runs, targets=target or (), reference=reference, json=json))


@app.command()
def report(
    runs: Runs,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML page to write.")] = Path("report.html"),
    targets: Annotated[
        list[float] | None,
        typer.Option(
            "--target", help="Held-out loss to reach. Repeatable. Default: the runs' own.", show_default=False
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="ARM", help="Compare to this arm. Default: the fastest in steps.", show_default=False),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Of the page. Default: the arms and the target.", show_default=False)
    ] = None,
) -> None:
    """Write the comparison as one HTML page, its charts as PNG and SVG."""
    from gnflow.commands.report import report

    streams.dispense()
    raise typer.Exit(report(runs, output=output, targets=targets or (), reference=reference, title=title))


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


study = typer.Typer(help="Comparisons of several methods: tuning, seeds, a DVC pipeline.", no_args_is_help=True)
app.add_typer(study, name="study")
Study = Annotated[Path, typer.Argument(metavar="STUDY", help="A folder with a study.yaml.", show_default=False)]


@study.command("plan")
def study_plan(folder: Study, json: Json = False) -> None:
    """Show the runs of a study and what they cost at most."""
    from gnflow.commands.study import plan

    raise typer.Exit(plan(folder, json=json))


@study.command("pipeline")
def study_pipeline(
    folder: Study,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 3 unless the file is up to date.")
    ] = False,
) -> None:
    """Write the study's dvc.yaml, one stage for each run."""
    from gnflow.commands.study import pipeline

    streams.dispense()
    raise typer.Exit(pipeline(folder, check=check))


@study.command("choose")
def study_choose(
    folder: Study, arm: Annotated[str, typer.Argument(metavar="ARM", help="An arm of it.", show_default=False)]
) -> None:
    """Write the spec of an arm's best trial to tuned/."""
    from gnflow.commands.study import choose

    streams.dispense()
    raise typer.Exit(choose(folder, arm))


@study.command("run")
def study_run(
    spec: Spec,
    sets: Sets = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to put the run. Default: runs/<name>.", show_default=False)
    ] = None,
) -> None:
    """Run one run of a study: `run --supersede`, for which a run that diverges is a result too."""
    from gnflow.commands.study import run

    streams.dispense()
    raise typer.Exit(run(spec, sets=sets or (), run_dir=run_dir))


@app.command()
def doctor(json: Json = False) -> None:
    """Check this machine: packages, compiler, device, store."""
    from gnflow.commands.doctor import doctor

    raise typer.Exit(doctor(json=json))


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 is every address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 5000,
    allowed: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="NAME",
            help="A name by which browsers ask for this machine, besides its own. Repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Open the MLflow UI on this project's store."""
    from gnflow.commands.ui import ui

    streams.dispense()
    raise typer.Exit(ui(host=host, port=port, allowed=allowed or ()))
