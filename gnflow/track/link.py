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
from gnflow.track.datasets import datasets
from gnflow.train.journal import JOURNAL, Step, first_line, identity

# Name in the run directory; the file has the id of the run and how far the journal has been sent.
MEMORY = "mlflow.json"
METRICS_AT_ONCE = 1000  # MLflow's limits for one batch
PARAMETERS_AT_ONCE = 100


class Link:
    """A run directory and its MLflow run."""

    def __init__(self, directory: Path, uri: str, client: MlflowClient, run: Run, identity: str, position: int):
        self.directory = directory
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
        line = first_line(directory / JOURNAL)
        if line is None:
            return None
        name = identity(line)
        client = store.opened(uri)
        run, position = _remembered(directory, client, uri, name)
        if run is None:
            group = store.experiment(description.group(directory), client, uri)
            run = next(iter(store.known_as(name, group, client)), None) or client.create_run(
                group,
                start_time=store.milliseconds(json.loads(line)["time"]),
                tags={description.IDENTITY: name},
                run_name=description.title(directory),
            )
        link = cls(directory, uri, client, run, name, position)
        link._remember()
        link._describe(run)
        if running and run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        link._nest(run)
        return link

    def _describe(self, run: Run) -> None:
        parameters = [
            Param(key, value)
            for key, value in description.parameters(self.directory).items()
            if key not in run.data.params  # MLflow does not let parameters change
        ]
        for some in store.groups(parameters, PARAMETERS_AT_ONCE):
            self.client.log_batch(self.run_id, params=some)
        tags = [
            RunTag(key, value)
            for key, value in description.tags(self.directory).items()
            if run.data.tags.get(key) != value
        ]
        self.client.log_batch(self.run_id, tags=tags)
        store.again(lambda: self.client.log_inputs(self.run_id, datasets(self.directory)))

    def _nest(self, run: Run) -> None:
        if name := description.study(self.directory):
            store.again(lambda: self._nest_under(name, run.info.start_time))

    def _nest_under(self, name: str, began: int) -> None:
        parent = study.parent(name, self.experiment, began, self.client)
        self.client.set_tag(self.run_id, store.PARENT, parent)
        study.settle(parent, self.experiment, self.client)

    def is_current(self) -> bool:
        """Whether the directory still holds the mirrored run."""
        line = first_line(self.directory / JOURNAL)
        return line is not None and identity(line) == self.identity

    def abandon(self) -> None:
        """Mark the run as failed: its directory is gone, so nothing more will be known of it."""
        self.client.set_terminated(self.run_id, "FAILED")

    def advance(self) -> bool:
        """Send the next part of the journal. Returns False if there is none."""
        chunk = tail.read(self.directory, self.position)
        if chunk.position == self.position:
            return False
        self.send(metric for step in chunk.steps for metric in metrics(step))
        self.position = chunk.position
        self._remember()
        return True

    def send(self, values: Iterable[Metric]) -> None:
        """Log `values`, many in one request. MLflow drops points that it already has with the same timestamp."""
        for some in store.groups(values, METRICS_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=some)

    def upload_model(self) -> Exception | None:
        """Store the final weights, unless MLflow has them. Returns errors."""
        from gnflow.track.logged_model import log_model

        try:
            log_model(self.directory, self.run_id, self.client)
        except Exception as error:
            return error
        return None

    def upload_new(self) -> None:
        """Store the files of the run directory that were not tried before."""
        self._upload([path for path in description.artifacts(self.directory) if path not in self._tried])

    def upload(self) -> Exception | None:
        """Store the files of the run directory. Returns errors, so that metrics are sent even if this fails."""
        return self._upload(description.artifacts(self.directory))

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
        self.client.set_terminated(self.run_id, status, store.milliseconds(time))
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


def metrics(step: Step) -> list[Metric]:
    """Convert one step to MLflow's metrics, with the time of the record."""
    time = store.milliseconds(step.time)
    return [Metric(description.metric_key(key), value, time, step.step) for key, value in step.values.items()]


def _remembered(directory: Path, client: MlflowClient, uri: str, identity: str) -> tuple[Run | None, int]:
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
