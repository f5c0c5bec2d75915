"""The final weights of a run in MLflow: uploaded once, with a signature and a loader that needs no pickle."""

import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Schema, TensorSpec

from gnflow.spec.load import load
from gnflow.train import checkpoint, results

NAME = "model"
WEIGHTS = "gnflow.weights_digest"
LOADER = "gnflow.track.model"
FILES = "data"  # name of the folder in the uploaded model that holds the directory of the run


def log_model(directory: Path, run_id: str, client: MlflowClient) -> None:
    """Upload `model/` unless MLflow has these weights of this run. An interrupted upload is repeated."""
    weights = _read_digest(directory / results.MODEL)
    if weights is None:
        return
    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    query = f"source_run_id = '{run_id}'"
    known = client.search_logged_models([experiment], query)
    model = next((model for model in known if model.tags.get(WEIGHTS) == weights), None)
    if model is None:
        model = client.create_logged_model(experiment, NAME, run_id, tags={WEIGHTS: weights})
    if model.status != LoggedModelStatus.READY:
        client.log_model_artifacts(model.model_id, str(directory / results.MODEL), FILES)
        _describe(directory, model, client)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in [output.model_id for output in outputs]:
        steps = json.loads((directory / results.SUMMARY).read_bytes())["steps"]
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, steps)])


def _read_digest(model: Path) -> str | None:
    """Return the digest of the weights from the manifest; None if the directory is incomplete."""
    if checkpoint.find_damage(model):
        return None
    return str(json.loads((model / checkpoint.MANIFEST).read_bytes())["files"][checkpoint.PARAMS]["sha256"])


def _describe(directory: Path, model: LoggedModel, client: MlflowClient) -> None:
    described = Model(signature=_make_signature(directory), model_id=model.model_id, run_id=model.source_run_id)
    described.add_flavor("python_function", loader_module=LOADER, data=FILES, python_version=platform.python_version())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        described.save(str(folder / "MLmodel"))
        versions = "".join(f"{name}=={version(name)}\n" for name in ("gnflow", "torch", "safetensors"))
        (folder / "requirements.txt").write_text(versions)
        client.log_model_artifacts(model.model_id, str(folder))


def _make_signature(directory: Path) -> ModelSignature:
    data = load(directory / results.EXPERIMENT).experiment.data
    ids = TensorSpec(np.dtype("int64"), (-1, data.context, *data.token_shape))
    logits = TensorSpec(np.dtype("float32"), (-1, data.context, data.vocabulary))
    return ModelSignature(Schema([ids]), Schema([logits]))
