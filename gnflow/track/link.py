"""One MLflow run for one run directory, across restarts. Every operation may be repeated without harm."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from gnflow.records import Incomplete, Status, Step, TrackedRun, Tracker
from gnflow.secrets import hide_secrets
from gnflow.spec.tracking import Mlflow
from gnflow.track import description, location, store, study
from gnflow.track.datasets import list_datasets
from gnflow.track.description import Description
from gnflow.workspace import Workspace

# Name in the run directory; the file has the id of the run and how far the journal has been sent.
MEMORY = "mlflow.json"
METRICS_AT_ONCE = 1000  # MLflow's limits for one batch
PARAMETERS_AT_ONCE = 100


class Link(Tracker):
    """A run directory and its MLflow run."""

    def __init__(self, about: Description, uri: str, client: MlflowClient, run: Run, identity: str, position: int):
        self.about = about
        self.directory = about.directory
        self.uri = uri
        self.client = client
        self.run_id = str(run.info.run_id)
        self.place = f"run {self.run_id}"
        self.experiment = str(run.info.experiment_id)
        self.identity = identity
        self.position = position
        self._tried: set[Path] = set()

    @classmethod
    def attach(cls, tracked: TrackedRun, uri: str) -> Self:
        """Find the MLflow run of a run, or create it.

        A run that the user has deleted in MLflow is ignored, and a new one is created.
        """
        name = tracked.identity
        about = description.describe(tracked.directory)
        client = store.open_client(uri)
        run, position = _recall_run(tracked.directory, client, uri, name)
        if run is None:
            group = store.ensure_experiment(about.group, client, uri)
            run = next(iter(store.find_runs(name, group, client)), None) or client.create_run(
                group,
                start_time=store.to_milliseconds(tracked.began),
                tags={description.IDENTITY: name},
                run_name=about.title,
            )
        link = cls(about, uri, client, run, name, position)
        link.remember()
        link._describe(run)
        if tracked.running and run.info.status != "RUNNING":
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

    def send(self, steps: Sequence[Step]) -> None:
        """Send the values of these steps."""
        self._log(metric for step in steps for metric in convert_to_metrics(step))

    def take_samples(self, samples: Sequence[object]) -> None:
        """Send samples of the load of the machine."""
        self._log(sample for sample in samples if isinstance(sample, Metric))

    def refresh(self) -> None:
        """Store the files of the run directory that were not tried before."""
        self._upload([path for path in description.list_artifacts(self.directory) if path not in self._tried])

    def finish(self, status: Status, ended: float) -> None:
        """Store all files, the status and the weights of the run. Raises Incomplete if files could not be stored."""
        problem = self._upload(description.list_artifacts(self.directory))
        self.client.set_terminated(self.run_id, status, store.to_milliseconds(ended))
        self._nest(self.client.get_run(self.run_id))
        problem = self._upload_model() or problem
        if problem is not None:
            raise Incomplete from problem

    def abandon(self) -> None:
        """Mark the run as failed: its directory is gone, so nothing more will be known of it."""
        self.client.set_terminated(self.run_id, "FAILED")

    def _log(self, values: Iterable[Metric]) -> None:
        """Log `values`, many in one request. MLflow drops points that it already has with the same timestamp."""
        for some in store.split_into_groups(values, METRICS_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=some)

    def _upload_model(self) -> Exception | None:
        """Store the final weights, unless MLflow has them. Return errors."""
        from gnflow.track.logged_model import log_model

        try:
            log_model(self.directory, self.run_id, self.client)
        except Exception as error:
            return error
        return None

    def _upload(self, paths: Sequence[Path]) -> Exception | None:
        self._tried.update(paths)
        try:
            for path in paths:
                folder = path.parent.name if path.parent != self.directory else None
                self.client.log_artifact(self.run_id, str(path), folder)
        except Exception as error:
            return error
        return None

    def remember(self) -> None:
        """Write down which run it is and how far the journal has been sent."""
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


def open_mlflow(section: Mlflow, run: TrackedRun) -> Link:
    """Open the MLflow run of a run; the spec of the tracker names this function as its factory."""
    return Link.attach(run, location.find_tracking_uri(Workspace(run.root)))


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
