"""The verbs that take a spec."""

from pathlib import Path
from typing import Annotated

import typer

from gnflow import streams
from gnflow.cli.app import Json, RunDir, Sets, Spec, Specs, app


@app.command()
def run(
    spec: Spec,
    sets: Sets = None,
    run_dir: RunDir = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin again, even if there is a run to resume.")] = False,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Move a run of another spec aside, to .superseded/; resume one of this.")
    ] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Let the run that is there go on to a later end of this spec.")
    ] = False,
    devices: Annotated[
        int, typer.Option(min=1, metavar="N", help="Compute it on N devices of this machine; the result is the same.")
    ] = 1,
    restarts: Annotated[
        int, typer.Option(min=0, metavar="R", help="With --devices: start again up to R times if a process is lost.")
    ] = 0,
) -> None:
    """Plan, compile and run a spec, or resume its interrupted run."""
    from gnflow.commands.run import run

    if extend and (fresh or supersede):
        raise typer.BadParameter(
            "it goes on from the run that --fresh or --supersede would replace", param_hint="--extend"
        )
    streams.dispense()
    raise typer.Exit(
        run(
            spec,
            sets=sets or (),
            run_dir=run_dir,
            fresh=fresh,
            supersede=supersede,
            extend=extend,
            devices=devices,
            restarts=restarts,
        )
    )


@app.command()
def init() -> None:
    """Make the folder around here a project: Git, DVC and .gitignore; what is there stays."""
    from gnflow.commands.init import init

    raise typer.Exit(init())


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
def plan(
    spec: Spec,
    sets: Sets = None,
    parameters: Annotated[bool, typer.Option("--parameters", help="List every tensor and its rule as well.")] = False,
    json: Json = False,
    devices: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Show how N devices would share the work.", show_default=False),
    ] = None,
) -> None:
    """Show what a run would do and cost; nothing is allocated."""
    from gnflow.commands.plan import plan

    raise typer.Exit(plan(spec, sets=sets or (), json=json, parameters=parameters, devices=devices))


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
