"""The final weights as a model of MLflow: token ids to logits. safetensors and a spec; nothing is unpickled.

MLmodel files name this module; MLflow calls `_load_pyfunc` with the directory that a run left as `model/`.
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
        """(rows, time[, channels]) ids -> (rows, time, vocabulary) logits of the token that follows each."""
        with torch.no_grad():
            logits: NDArray[np.float32] = self.network.logits(self.params, torch.as_tensor(ids)).numpy()
        return logits


def _load_pyfunc(path: str) -> Logits:
    """Raises DiskProblem when a file does not match its digest."""
    directory = Path(path)
    if problem := checkpoint.damage_of(directory):
        raise DiskProblem(f"{directory}: {problem}")
    experiment = load(directory / results.EXPERIMENT).experiment
    network = build.model(experiment, build.choose_kernel(experiment))
    return Logits(network, load_file(directory / checkpoint.PARAMS))
