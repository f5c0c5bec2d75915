"""A study is a run of MLflow that the runs of the study are nested under."""

import hashlib

from mlflow import MlflowClient

from gnflow.track import description, store


def parent(study: str, experiment: str, began: int, client: MlflowClient) -> str:
    """The id of the run of a study, which is made when there is none (`began` in milliseconds).

    MLflow has nothing against two of them, so runs that begin at once may each make one. Whoever looks next repairs it:
    the oldest stays, the others are deleted and hand over their children, in this order: who would be nested under one
    that is gone is refused, and looks again. A run looks when it begins and when it ends, so what slips through at the
    beginning is found in the end.
    """
    identity = hashlib.sha256(f"study/{study}".encode()).hexdigest()[:32]
    found = store.known_as(identity, experiment, client)
    if not found:
        tags = {description.IDENTITY: identity, description.STUDY: study, **description.SOURCE}
        made = client.create_run(experiment, start_time=began, tags=tags, run_name=study)
        found = store.known_as(identity, experiment, client) or [made]
    kept, *others = (run.info.run_id for run in found)
    for other in others:
        client.delete_run(other)
        for child in store.children(other, experiment, client):
            client.set_tag(child.info.run_id, store.PARENT, kept)
    return str(kept)


def settle(parent: str, experiment: str, client: MlflowClient) -> None:
    """A study runs while any of its runs does; it has ended when the last of them has."""
    infos = [child.info for child in store.children(parent, experiment, client)]
    if any(info.status == "RUNNING" for info in infos):
        client.update_run(parent, status="RUNNING")
    else:
        client.set_terminated(parent, "FINISHED", max((info.end_time or 0 for info in infos), default=0))
