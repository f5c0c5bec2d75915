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
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin again, even if a run can be resumed.")] = False,
    supersede: Annotated[
        bool,
        typer.Option(
            "--supersede", help="Move a run of another spec aside to .superseded/, or resume a run of this spec."
        ),
    ] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Continue the existing run to the later end of this spec.")
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
            "it continues the run that --fresh or --supersede would replace; leave one of them out",
            param_hint="--extend",
        )
    streams.tolerate_failures()
    raise typer.Exit(
        run(
            spec, sets=sets or (), run_dir=run_dir, fresh=fresh, supersede=supersede, extend=extend, devices=devices,
            restarts=restarts,
        )
    )  # fmt: skip


@app.command("init")
def make_project() -> None:
    """Make a project here, with Git, DVC and .gitignore. Existing files stay as they are."""
    from gnflow.commands.init import make_project

    raise typer.Exit(make_project())


@app.command("new")
def write_spec(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The name of the spec and of its run. It may be left out with --like."),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Use this kind of optimizer. Default: gauss_newton."),
    ] = None,
    base: Annotated[Path | None, typer.Option("--from", metavar="SPEC", help="Start from this spec.")] = None,
    like: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            metavar="TOOL PATH",
            help="Turn settings of another tool into a spec: nanogpt config.py, or huggingface DIR.",
        ),
    ] = None,
    study: Annotated[bool, typer.Option("--study", help="Write a small study of this name in pipelines/.")] = False,
    against: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Compare with this kind of optimizer in the study. Default: adamw."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Train on this text file of the project. The option can be repeated."),
    ] = None,
) -> None:
    """Write a new spec that explains its values, or a study."""
    from gnflow.commands.new import write_like, write_spec
    from gnflow.commands.new_study import write_study

    streams.tolerate_failures()
    if like is not None and (optimizer or base or study or text):
        raise typer.BadParameter("it takes no other option beside it", param_hint="--like")
    if study and base:
        raise typer.BadParameter("a study has specs of its own; leave --from out", param_hint="--study")
    if against and not study:
        raise typer.BadParameter("only a study compares two methods; add --study", param_hint="--against")
    if text and base:
        raise typer.BadParameter("the spec of --from has a text; leave --text out", param_hint="--text")
    if like is not None:
        raise typer.Exit(write_like(name, *like))
    if name is None:
        raise typer.BadParameter("a name is missing", param_hint="NAME")
    if study:
        raise typer.Exit(write_study(name, optimizer=optimizer, against=against, text=text or ()))
    raise typer.Exit(write_spec(name, optimizer=optimizer, base=base, text=text or ()))


@app.command()
def check(
    specs: Annotated[
        list[Path],
        typer.Argument(metavar="SPEC", help="The YAML files that describe the runs, or studies and their folders."),
    ],
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Validate specs and studies, and print all problems at once (exit code 3)."""
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
        typer.Option(min=1, metavar="N", help="Show how N devices would share the work."),
    ] = None,
) -> None:
    """Show the work and the cost of a run without allocating anything."""
    from gnflow.commands.plan import plan

    raise typer.Exit(plan(spec, sets=sets or (), json=json, parameters=parameters, devices=devices))


@app.command()
def graph(spec: Spec, sets: Sets = None, json: Json = False) -> None:
    """Compile a spec and show its regions: nodes, kernels, seconds, breaks."""
    from gnflow.commands.graph import graph

    raise typer.Exit(graph(spec, sets=sets or (), json=json))


@app.command()
def explain(
    spec: Spec,
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="The key to explain, such as optimizer.inner. Default: all keys."),
    ] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Show a value, its meaning, and the line that set it."""
    from gnflow.commands.explain import explain

    raise typer.Exit(explain(spec, key, sets=sets or (), json=json))


@app.command()
def verify(specs: Specs, sets: Sets = None, json: Json = False) -> None:
    """Check derivatives and optimizers of specs on small copies."""
    from gnflow.commands.verify import verify

    raise typer.Exit(verify(specs, sets=sets or (), json=json))


@app.command("schema")
def print_schema(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the schema to this file.")] = None,
) -> None:
    """Print the JSON Schema of a spec, for editors."""
    from gnflow.commands.schema import print_schema

    if output is not None:
        streams.tolerate_failures()
    raise typer.Exit(print_schema(output))


@app.command()
def prepare(specs: Specs, sets: Sets = None) -> None:
    """Fetch and tokenize the data of specs. `run` does this when needed."""
    from gnflow.commands.prepare import prepare

    streams.tolerate_failures()
    raise typer.Exit(prepare(specs, sets=sets or ()))
