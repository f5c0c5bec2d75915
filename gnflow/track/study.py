"""A study is an MLflow run under which the runs of the study are nested."""

import hashlib

from mlflow import MlflowClient

from gnflow.track import description, store


def ensure_parent(study: str, experiment: str, began: int, client: MlflowClient) -> str:
    """Return the id of the MLflow run of a study, and make it if there is none (`began` in milliseconds).

    MLflow allows several runs for one study, so runs that begin at the same time may each make one. The next run that
    looks repairs this: it keeps the oldest, deletes the others, and then moves their children. In this order, MLflow
    refuses to nest a run under a deleted one, and that run looks again. A run looks when it begins and when it ends, so
    duplicates that are missed at the beginning are found at the end.
    """
    identity = hashlib.sha256(f"study/{study}".encode()).hexdigest()[:32]
    found = store.find_runs(identity, experiment, client)
    if not found:
        tags = {description.IDENTITY: identity, description.STUDY: study, **description.SOURCE}
        made = client.create_run(experiment, start_time=began, tags=tags, run_name=study)
        found = store.find_runs(identity, experiment, client) or [made]
    kept, *others = (run.info.run_id for run in found)
    for other in others:
        client.delete_run(other)
        for child in store.find_children(other, experiment, client):
            client.set_tag(child.info.run_id, store.PARENT, kept)
    return str(kept)


def settle(parent: str, experiment: str, client: MlflowClient) -> None:
    """Mark a study as running while any of its runs is, and as ended when the last of them has ended.

    MLflow cannot read and write in one go, so a run may end in between. Therefore the children are read again until
    they are what was written last; whoever writes last has then read what is true.
    """
    written: tuple[bool, int] | None = None
    while (found := _read_children(parent, experiment, client)) != written:
        running, ended = written = found
        if running:
            client.update_run(parent, status="RUNNING")
        else:
            client.set_terminated(parent, "FINISHED", ended)


def _read_children(parent: str, experiment: str, client: MlflowClient) -> tuple[bool, int]:
    """Return whether a run of the study is running, and when the last one ended (0 while one is)."""
    infos = [child.info for child in store.find_children(parent, experiment, client)]
    running = any(info.status == "RUNNING" for info in infos)
    return running, 0 if running else max((info.end_time or 0 for info in infos), default=0)
