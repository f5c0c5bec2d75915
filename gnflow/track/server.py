"""The MLflow UI on the local store, in a process of its own."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gnflow.errors import EnvironmentProblem
from gnflow.secrets import hide_secrets
from gnflow.track import hosts, location, relocation

PATIENCE = 180.0  # seconds until a server that does not answer counts as failed
FAREWELL = 5.0  # seconds between asking a server to stop and killing it

CHARTS = "compareRunsMode=CHART"  # the page of an experiment that shows curves, not a table

# Otherwise MLflow starts seven more processes, for language-model judges.
SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


# The server is on this machine, so no proxy is used, even if the environment names one.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def serve(uri: str, host: str, port: int, log: Path, allowed: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow's server on the store `uri` until the block ends, and then stop it with all its processes.

    `allowed` are further names by which browsers may address this machine. Raises EnvironmentProblem if the port is
    taken or the server does not start.
    """
    _require_free(host, port)
    log.parent.mkdir(parents=True, exist_ok=True)
    _make_ready(uri)
    command = [sys.executable, "-P", "-m", "mlflow", "server"]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    if place := location.make_artifacts_uri(uri):
        command += ["--default-artifact-root", place, "--artifacts-destination", place]
    environment = location.SETTINGS | SETTINGS | hosts.make_settings(host, allowed) | dict(os.environ)
    environment |= location.exempt_from_proxy(os.environ)
    # The environment is used because every user of the machine may read the arguments.
    environment["MLFLOW_BACKEND_STORE_URI"] = uri
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=log.parent, env=environment, start_new_session=True
        )
    try:
        _await(process, host, port, log)
        yield process
    finally:
        _stop(process)


def _make_ready(uri: str) -> None:
    file = location.find_database(uri)
    if file is None:
        return
    try:
        if file.exists():
            relocation.settle(file)
        else:
            from gnflow.track import store  # the new process imports MLflow, which takes seconds

            store.make_store(file)
    except (OSError, sqlite3.Error) as error:
        raise EnvironmentProblem(f"The MLflow store {file} cannot be used: {error}.") from error


def make_address(host: str, port: int) -> str:
    """Return the address to type into a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def find_charts(host: str, port: int) -> dict[str, str]:
    """Return the address of the charts of each experiment, which MLflow's front page does not show."""
    question = f"{make_address(host, port)}/api/2.0/mlflow/experiments/search?max_results=50"
    with _direct.open(question, timeout=30) as answer:
        found = json.load(answer).get("experiments", [])
    return {
        str(experiment["name"]): f"{make_address(host, port)}/#/experiments/{experiment['experiment_id']}/runs?{CHARTS}"
        for experiment in found
        if experiment["experiment_id"] != "0"
    }


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EnvironmentProblem(
                f"Cannot listen on {host}:{port} ({error.strerror}); choose another port, as with --port {port + 1}."
            ) from None


def _await(process: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        if process.poll() is not None:
            last = hide_secrets("\n".join(log.read_text(errors="replace").strip().splitlines()[-3:]))
            raise EnvironmentProblem(f"MLflow's server stopped at once:\n{last}\nIts whole output is in {log}.")
        with suppress(OSError), _direct.open(f"{make_address(host, port)}/health", timeout=5):
            return
        time.sleep(0.2)
    raise EnvironmentProblem(f"MLflow's server did not answer within {PATIENCE:g} s; its output is in {log}.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(FAREWELL)
