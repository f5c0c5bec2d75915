"""The application, its options for all verbs, and the arguments that several verbs share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gnflow import faults

app = typer.Typer(
    name="gnflow",
    help="Declarative experiments with second-order optimizers for LLM pretraining.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The YAML file that describes the run.")]
Specs = Annotated[list[Path], typer.Argument(metavar="SPEC", help="The YAML files that describe the runs.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one value, such as training.seed=3. The option can be repeated."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The directory or the name of a run.")]
Targets = Annotated[
    list[float] | None,
    typer.Option(
        "--target",
        help="Compare the cost of reaching this held-out loss. The option can be repeated. Default: the target of the "
        "runs; equal budgets if they have none in common. With --budget: test whether the loss of each arm ends below "
        "this one.",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(metavar="TOKENS", help="Compare the losses at the end of schedules, all of this number of tokens."),
]
Sigma = Annotated[
    float | None,
    typer.Option(min=1e-9, help="With --budget: the known standard deviation of the loss over seeds, for z-tests."),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="ARM",
        help="Compare the other arms to this one. Default: the arm with the fewest steps or the lowest loss.",
    ),
]
RunDir = Annotated[Path | None, typer.Option(help="Write the run to this directory. Default: runs/<name>.")]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="The directories or the names of runs.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"gnflow {version('gnflow')}")
        raise typer.Exit


@app.callback()
def handle_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Load the kinds of this Python file. The option can be repeated."),
    ] = None,
) -> None:
    """Declarative experiments with second-order optimizers for LLM pretraining."""
    if plugin:
        from gnflow.spec.kinds import try_out

        for file in plugin:
            try_out(file)
    try:
        faults.arm(os.environ.get(faults.VARIABLE, ""))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=faults.VARIABLE) from None
