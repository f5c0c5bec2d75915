"""One MLflow run for one run directory, across restarts. Every operation may be repeated without harm."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from gnflow.secrets import hide_secrets
from gnflow.track import description, store, study, tail
from gnflow.track.datasets import list_datasets
from gnflow.track.description import Description
from gnflow.train.journal import JOURNAL, Step, compute_identity, read_first_line

# Name in the run directory; the file has the id of the run and how far the journal has been sent.
MEMORY = "mlflow.json"
METRICS_AT_ONCE = 1000  # MLflow's limits for one batch
PARAMETERS_AT_ONCE = 100


class Link:
    """A run directory and its MLflow run."""

    def __init__(self, about: Description, uri: str, client: MlflowClient, run: Run, identity: str, position: int):
        self.about = about
        self.directory = about.directory
        self.uri = uri
        self.client = client
        self.run_id = str(run.info.run_id)
        self.experiment = str(run.info.experiment_id)
        self.identity = identity
        self.position = position
        self._tried: set[Path] = set()

    @classmethod
    def attach(cls, directory: Path, uri: str, running: bool) -> Self | None:
        """Find the MLflow run of `directory`, or create it. None while the journal has no line yet.

        A run that the user has deleted in MLflow is ignored, and a new one is created.
        """
        line = read_first_line(directory / JOURNAL)
        if line is None:
            return None
        name = compute_identity(line)
        about = description.describe(directory)
        client = store.open_client(uri)
        run, position = _recall_run(directory, client, uri, name)
        if run is None:
            group = store.ensure_experiment(about.group, client, uri)
            run = next(iter(store.find_runs(name, group, client)), None) or client.create_run(
                group,
                start_time=store.to_milliseconds(json.loads(line)["time"]),
                tags={description.IDENTITY: name},
                run_name=about.title,
            )
        link = cls(about, uri, client, run, name, position)
        link._remember()
        link._describe(run)
        if running and run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        link._nest(run)
        return link

    def _describe(self, run: Run) -> None:
        parameters = [
            Param(key, value)
            for key, value in self.about.parameters.items()
            if key not in run.data.params  # MLflow does not let parameters change
        ]
        for some in store.split_into_groups(parameters, PARAMETERS_AT_ONCE):
            self.client.log_batch(self.run_id, params=some)
        tags = [RunTag(key, value) for key, value in self.about.tags.items() if run.data.tags.get(key) != value]
        self.client.log_batch(self.run_id, tags=tags)
        store.repeat(lambda: self.client.log_inputs(self.run_id, list_datasets(self.about)))

    def _nest(self, run: Run) -> None:
        if name := self.about.study:
            store.repeat(lambda: self._nest_under(name, run.info.start_time))

    def _nest_under(self, name: str, began: int) -> None:
        parent = study.ensure_parent(name, self.experiment, began, self.client)
        self.client.set_tag(self.run_id, store.PARENT, parent)
        study.settle(parent, self.experiment, self.client)

    def is_current(self) -> bool:
        """Return whether the directory still holds the mirrored run."""
        line = read_first_line(self.directory / JOURNAL)
        return line is not None and compute_identity(line) == self.identity

    def abandon(self) -> None:
        """Mark the run as failed: its directory is gone, so nothing more will be known of it."""
        self.client.set_terminated(self.run_id, "FAILED")

    def advance(self) -> bool:
        """Send the next part of the journal. Return False if there is none."""
        chunk = tail.read(self.directory, self.position)
        if chunk.position == self.position:
            return False
        self.send(metric for step in chunk.steps for metric in convert_to_metrics(step))
        self.position = chunk.position
        self._remember()
        return True

    def send(self, values: Iterable[Metric]) -> None:
        """Log `values`, many in one request. MLflow drops points that it already has with the same timestamp."""
        for some in store.split_into_groups(values, METRICS_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=some)

    def upload_model(self) -> Exception | None:
        """Store the final weights, unless MLflow has them. Return errors."""
        from gnflow.track.logged_model import log_model

        try:
            log_model(self.directory, self.run_id, self.client)
        except Exception as error:
            return error
        return None

    def upload_new(self) -> None:
        """Store the files of the run directory that were not tried before."""
        self._upload([path for path in description.list_artifacts(self.directory) if path not in self._tried])

    def upload(self) -> Exception | None:
        """Store the files of the run directory. Return errors, so that metrics are sent even if this fails."""
        return self._upload(description.list_artifacts(self.directory))

    def _upload(self, paths: Sequence[Path]) -> Exception | None:
        self._tried.update(paths)
        try:
            for path in paths:
                folder = path.parent.name if path.parent != self.directory else None
                self.client.log_artifact(self.run_id, str(path), folder)
        except Exception as error:
            return error
        return None

    def finish(self, status: str, time: float) -> None:
        """Set how the run ended and when (in Unix seconds)."""
        self.client.set_terminated(self.run_id, status, store.to_milliseconds(time))
        self._nest(self.client.get_run(self.run_id))

    def _remember(self) -> None:
        memory = {
            "tracking_uri": hide_secrets(self.uri),
            "run_id": self.run_id,
            "identity": self.identity,
            "position": self.position,
        }
        path = self.directory / MEMORY
        temporary = path.with_suffix(".json.part")
        temporary.write_text(json.dumps(memory, indent=2) + "\n")
        temporary.replace(path)


def convert_to_metrics(step: Step) -> list[Metric]:
    """Convert one step to MLflow's metrics, with the time of the record."""
    time = store.to_milliseconds(step.time)
    return [Metric(description.make_metric_key(key), value, time, step.step) for key, value in step.values.items()]


def _recall_run(directory: Path, client: MlflowClient, uri: str, identity: str) -> tuple[Run | None, int]:
    memory = description.read_json(directory / MEMORY)
    position = memory.get("position")
    ours = memory.get("identity") == identity and memory.get("tracking_uri") == hide_secrets(uri)
    if not ours or not isinstance(position, int):
        return None, 0
    try:
        run = client.get_run(str(memory["run_id"]))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None, 0
        raise
    return (run, position) if run.info.lifecycle_stage == "active" else (None, 0)
