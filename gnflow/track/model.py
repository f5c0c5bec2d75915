"""The final weights as an MLflow model from token ids to logits. It consists of safetensors and a spec, without pickle.

MLmodel files name this module, and MLflow calls `_load_pyfunc` with the directory `model/` of a run.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from gnflow.compiler import build
from gnflow.errors import DiskProblem
from gnflow.models.model import Model
from gnflow.objective import Params
from gnflow.spec.load import load
from gnflow.train import checkpoint, results


class Logits(NamedTuple):
    """A network with its weights."""

    network: Model
    params: Params

    def predict(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute logits (rows, time, vocabulary) of the token after each of the ids (rows, time[, channels])."""
        with torch.no_grad():
            logits: NDArray[np.float32] = self.network.compute_logits(self.params, torch.as_tensor(ids)).numpy()
        return logits


def _load_pyfunc(path: str) -> Logits:
    """Load the model. Raises DiskProblem if a file does not match its digest."""
    directory = Path(path)
    if problem := checkpoint.find_damage(directory):
        raise DiskProblem(f"{directory}: {problem}")
    experiment = load(directory / results.EXPERIMENT).experiment
    network = build.build_model(experiment, build.choose_kernel(experiment))
    return Logits(network, load_file(directory / checkpoint.PARAMS))
