"""The MLflow store that runs are mirrored to, and the environment that it needs."""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from gnflow.errors import EnvironmentProblem
from gnflow.secrets import hide_secrets
from gnflow.workspace import Workspace

VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE = "mlflow.db"
RESERVED = re.compile(r"[%?#]")
SQLITE = re.compile(r"sqlite(\+\w+)?:///(?!file:|:memory:)(?P<file>[^?]+)")
LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "0.0.0.0")
NO_PROXY = ("no_proxy", "NO_PROXY")

# Set before MLflow or wandb is imported, unless the user has set them. gnflow retries by itself, sooner than MLflow
# would.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


def find_tracking_uri(workspace: Workspace) -> str:
    """Return `MLFLOW_TRACKING_URI`, or else the address of the database of the project."""
    return os.environ.get(VARIABLE, "").strip() or make_uri(workspace.mlflow / DATABASE)


def make_uri(file: Path) -> str:
    """Return the URI of an sqlite store. `%`, `?` and `#` are escaped, so that a directory may have any name.

    For a plain `sqlite:` URI, MLflow makes the parent directories itself and does not unescape the name.
    """
    escaped = RESERVED.sub(lambda found: quote(found[0]), str(file))
    return f"{'sqlite' if escaped == str(file) else 'sqlite+pysqlite'}:///{escaped}"


def find_database(uri: str) -> Path | None:
    """Return the file of an sqlite store."""
    found = SQLITE.match(uri)
    return Path(unquote(found["file"])).absolute() if found else None


def find_artifacts(database: Path) -> Path:
    """Return the directory in which an sqlite store keeps artifacts."""
    return database.parent / "artifacts"


def make_artifacts_uri(uri: str) -> str | None:
    """Return that directory as a URI. A store that is not an sqlite file chooses its own place."""
    file = find_database(uri)
    return find_artifacts(file).as_uri() if file else None


def settle_environment() -> None:
    """Turn MLflow's telemetry, chatter and long retries off, here and in subprocesses. Call it from the main thread.

    Servers on this machine are asked directly, without a proxy.
    """
    for name, value in {**SETTINGS, **exempt_from_proxy(os.environ)}.items():
        if name in NO_PROXY:
            os.environ[name] = value
        else:
            os.environ.setdefault(name, value)


def exempt_from_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that list hosts without a proxy, with this machine added."""
    named = {name: environment.get(name, "") for name in NO_PROXY}
    either = next((value for value in named.values() if value), "")
    return {name: _add_loopback(value or either) for name, value in named.items()}


def _add_loopback(hosts: str) -> str:
    known = [host for host in (part.strip() for part in hosts.split(",")) if host]
    return hosts if "*" in known else ",".join(dict.fromkeys([*known, *LOOPBACK]))


def check_available() -> None:
    """Raise EnvironmentProblem if MLflow is not installed, or no longer accepts a store of this kind."""
    # To Python, a project's directory `mlflow/` looks like a package without origin.
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
            f"{VARIABLE}={hide_secrets(uri)} names a directory of files, which MLflow no longer writes to.\n"
            f"Unset it to use the database of the project, or set it to an address like `http://host:5000` "
            f"or `sqlite:////absolute/path/{DATABASE}`."
        )
