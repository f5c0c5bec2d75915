"""Find things in an MLflow store, and make them if they do not exist."""

import shlex
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service import utils

from gnflow.errors import EnvironmentProblem
from gnflow.locks import lock_file
from gnflow.secrets import hide_secrets
from gnflow.track import description, location, relocation

PARENT = "mlflow.parentRunId"

Item = TypeVar("Item")

CONTENDED = {"BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS"}
ATTEMPTS = 10


def open_client(uri: str) -> MlflowClient:
    """Open a client of the store, after making the store if needed and repairing the addresses of its artifacts."""
    if file := location.find_database(uri):
        make_store(file)
        if relocation.settle(file):
            # MLflow caches where it has found the artifacts of a run.
            getattr(utils, "_artifact_repos_cache", {}).clear()
    return MlflowClient(tracking_uri=uri)


def make_store(file: Path) -> None:
    """Make an sqlite store that is complete or absent.

    MLflow builds its tables in many steps when a store is first used. Two processes at the same time, or one that is
    killed, would leave a store that cannot be opened again.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(file.with_name(f".{file.name}.lock")):
        if file.exists():
            return
        partial = file.with_name(f".{file.name}.partial")
        for rest in file.parent.glob(f"{partial.name}*"):
            rest.unlink()
        MlflowClient(tracking_uri=location.make_uri(partial)).search_experiments(max_results=1)
        # MLflow's default experiment would store its artifacts below the current directory.
        relocation.rebase(partial, (Path.cwd() / "mlruns").as_posix(), location.find_artifacts(file).as_uri())
        partial.replace(file)


def ensure_experiment(name: str, client: MlflowClient, uri: str) -> str:
    """Return the id of an MLflow experiment. Raises EnvironmentProblem if it was deleted, as it then keeps its name."""

    def get_or_create() -> str:
        found = client.get_experiment_by_name(name)
        if found and found.lifecycle_stage == "deleted":
            where = shlex.quote(hide_secrets(uri))
            raise EnvironmentProblem(
                f"the experiment `{name}` was deleted in MLflow; restore it with `{location.VARIABLE}={where} "
                f"mlflow experiments restore --experiment-id {found.experiment_id}`, "
                "or give `tracking.experiment` another name"
            )
        return str(found.experiment_id if found else client.create_experiment(name, location.make_artifacts_uri(uri)))

    return repeat(get_or_create)


def repeat(action: Callable[[], Item]) -> Item:
    """Repeat an action that first looks and then writes until it succeeds, and return its result.

    In MLflow this is not one transaction, so another process may write in between: the same dataset, or the end of the
    parent that was found. Each refusal means that one other process has succeeded, so there is an end to the attempts.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return action()
        except MlflowException as error:
            if error.error_code not in CONTENDED:
                raise
    return action()


def find_runs(identity: str, experiment: str, client: MlflowClient) -> list[Run]:
    """Find the runs that have this identity, the oldest first. Runs that were deleted in MLflow are ignored."""
    runs = _find_tagged(description.IDENTITY, identity, experiment, client)
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def find_children(parent: str, experiment: str, client: MlflowClient) -> list[Run]:
    """Find the runs that are nested under a run."""
    return _find_tagged(PARENT, parent, experiment, client)


def _find_tagged(key: str, value: str, experiment: str, client: MlflowClient) -> list[Run]:
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`{key}` = '{value}'", ViewType.ACTIVE_ONLY, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def to_milliseconds(time: float) -> int:
    """Convert Unix seconds to the milliseconds that MLflow uses."""
    return round(time * 1000)


def split_into_groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Divide items into groups of at most `size`."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group
