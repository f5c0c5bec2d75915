"""`gnflow ui`: open the MLflow UI on the store of the project."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from gnflow.secrets import hide_secrets
from gnflow.track import hosts, location, server
from gnflow.train.signals import list_signals
from gnflow.workspace import Workspace


def serve_ui(*, host: str = "127.0.0.1", port: int = 5000, allowed: Sequence[str] = ()) -> int:
    """Serve the MLflow UI until Ctrl-C; browsers may address this machine by the names in `allowed` as well.

    Raises EnvironmentProblem if MLflow is missing or the port is taken.
    """
    location.check_available()
    workspace = Workspace.find(Path.cwd())
    uri = location.find_tracking_uri(workspace)
    shown = hide_secrets(uri)
    if uri.startswith(("http://", "https://")):
        print(f"Runs are mirrored to {shown} ({location.VARIABLE}): open it in a browser.")
        return 0
    print(f"Starting MLflow on {shown} ...", flush=True)
    previous = {number: signal.signal(number, _leave) for number in list_signals()}
    try:
        with server.serve(uri, host, port, workspace.mlflow / "ui.log", allowed) as process:
            print(f"MLflow UI: {server.make_address(host, port)}  (Ctrl-C stops it)")
            if not hosts.is_loopback(host):
                print(f"  It answers to {', '.join(hosts.list_names(host, allowed))}; --allow NAME adds a name.")
            for name, page in server.find_charts(host, port).items():
                print(f"  charts of {name}: {page}")
            sys.stdout.flush()
            return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
