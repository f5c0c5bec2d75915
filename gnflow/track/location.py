"""Which MLflow store runs are mirrored to, and whether this environment can reach it at all."""

import importlib.util
import os
from pathlib import Path

from gnflow.errors import EnvironmentProblem
from gnflow.secrets import without_secrets
from gnflow.workspace import Workspace

VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE = "mlflow.db"

# Set before MLflow is imported, never over what the user has set. We retry ourselves, and sooner than MLflow would.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


def tracking_uri(workspace: Workspace) -> str:
    """`MLFLOW_TRACKING_URI`, or the database of the project."""
    return os.environ.get(VARIABLE, "").strip() or f"sqlite:///{workspace.mlflow / DATABASE}"


def database(uri: str) -> Path | None:
    """The file of an sqlite store."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def artifacts(uri: str) -> str | None:
    """Where an sqlite store keeps artifacts: beside its database. Any other store decides for itself."""
    file = database(uri)
    return (file.parent / "artifacts").as_uri() if file else None


def settle_environment() -> None:
    """Turn MLflow's telemetry, chatter and long retries off, here and in subprocesses. Call it from the main thread."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def check_available() -> None:
    """Raises EnvironmentProblem when MLflow is not installed, or is told to use a store that it no longer accepts."""
    # A project's directory `mlflow/` looks like a package without origin to Python.
    found = importlib.util.find_spec("mlflow")
    if found is None or found.origin is None:
        raise EnvironmentProblem(
            "MLflow is not installed.\nInstall it with `pip install 'gnflow[mlflow]'`, "
            "or run without it: `tracking: none` in the spec, or `--set tracking=none`."
        )
    uri = os.environ.get(VARIABLE, "").strip()
    is_directory = bool(uri) and ("://" not in uri or uri.startswith("file:")) and not uri.startswith("databricks")
    if is_directory and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("1", "true"):
        raise EnvironmentProblem(
            f"{VARIABLE}={without_secrets(uri)} names a directory of files, which MLflow no longer writes to.\n"
            f"Unset it to use the database of the project, or set it to an address like `http://host:5000` "
            f"or `sqlite:////absolute/path/{DATABASE}`."
        )
