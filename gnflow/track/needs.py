"""Require the packages of trackers. `gnflow run` and `gnflow check` call this."""

import importlib.util
from pathlib import Path

from gnflow.errors import EnvironmentProblem
from gnflow.spec.tracking import Mlflow, TensorBoard, Wandb
from gnflow.track import location


def require_mlflow(section: Mlflow, root: Path) -> None:
    """Raise EnvironmentProblem if MLflow is not installed, or no longer accepts a store of this kind."""
    location.check_available()


def require_tensorboard(section: TensorBoard, root: Path) -> None:
    """Raise EnvironmentProblem if the package that writes event files is not installed."""
    _require("tensorboard", "TensorBoard", "tensorboard")


def require_wandb(section: Wandb, root: Path) -> None:
    """Raise EnvironmentProblem if the package of Weights & Biases is not installed."""
    _require("wandb", "The package wandb", "wandb")


def _require(module: str, name: str, extra: str) -> None:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:  # a directory of this name looks like a package without origin
        raise EnvironmentProblem(
            f"{name} is not installed.\nInstall it with `pip install 'gnflow[{extra}]'`, "
            "or run without it: `tracking: none` in the spec, or `--set tracking=none`."
        )
