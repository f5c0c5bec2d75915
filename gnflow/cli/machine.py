"""The verbs about this machine and its store."""

from typing import Annotated

import typer

from gnflow import streams
from gnflow.cli.app import Json, app


@app.command()
def diagnose(json: Json = False) -> None:
    """Check this machine: packages, compiler, device, store."""
    from gnflow.commands.doctor import diagnose

    raise typer.Exit(diagnose(json=json))


@app.command()
def serve_ui(
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
    from gnflow.commands.ui import serve_ui

    streams.tolerate_failures()
    raise typer.Exit(serve_ui(host=host, port=port, allowed=allowed or ()))
