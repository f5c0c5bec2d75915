"""The verbs about this machine and its store."""

from typing import Annotated

import typer

from gnflow import streams
from gnflow.cli.app import Json, app


@app.command("doctor")
def diagnose(json: Json = False) -> None:
    """Check the packages, compiler, device and store of this machine."""
    from gnflow.commands.doctor import diagnose

    raise typer.Exit(diagnose(json=json))


@app.command("ui")
def serve_ui(
    host: Annotated[str, typer.Option(help="Serve on this address; 0.0.0.0 means all addresses.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Serve on this port.")] = 5000,
    allowed: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="NAME",
            help="Let browsers address this machine by this name as well. The option can be repeated.",
        ),
    ] = None,
) -> None:
    """Open the MLflow UI on this project's store."""
    from gnflow.commands.ui import serve_ui

    streams.tolerate_failures()
    raise typer.Exit(serve_ui(host=host, port=port, allowed=allowed or ()))
