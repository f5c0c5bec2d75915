"""The section `tracking:`: where a run is shown besides its own directory."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gnflow.spec.base import Kind, Spec
from gnflow.spec.open import Open


class TrackerKind(Kind):
    """A tracker. `factory` takes the tracker's section and a TrackedRun, and returns a Tracker (gnflow/records.py)."""

    needs: ClassVar[str] = ""
    """`module:function`, if there is one. `gnflow run` and `gnflow check` call it with the section and the root of the
    project, and it raises EnvironmentProblem for what is missing."""
    measures: ClassVar[bool] = False
    """Whether the tracker takes samples of the load of the machine."""


class Mlflow(TrackerKind):
    """Mirror the run to MLflow."""

    factory = "gnflow.track.link:open_mlflow"
    needs = "gnflow.track.needs:require_mlflow"
    measures = True
    kind: Literal["mlflow"] = "mlflow"
    experiment: Annotated[str, Field(min_length=1)] = "gnflow"
    """Name of the MLflow experiment that the run belongs to."""
    study: Annotated[str | None, Field(min_length=1)] = None
    """Name of the study that the run belongs to. MLflow shows the runs of a study under one parent run. Default: no
    study."""


class TensorBoard(TrackerKind):
    """Write event files for TensorBoard to `tensorboard/` in the run directory."""

    factory = "gnflow.track.to_tensorboard:open_tensorboard"
    needs = "gnflow.track.needs:require_tensorboard"
    kind: Literal["tensorboard"] = "tensorboard"


class Wandb(TrackerKind):
    """Write the run for Weights & Biases to `wandb/` in the run directory."""

    factory = "gnflow.track.to_wandb:open_wandb"
    needs = "gnflow.track.needs:require_wandb"
    kind: Literal["wandb"] = "wandb"
    experiment: Annotated[str, Field(min_length=1)] = "gnflow"
    """Name of the project of Weights & Biases that the run belongs to."""
    study: Annotated[str | None, Field(min_length=1)] = None
    """Name of the study that the run belongs to, which is its group there. Default: no study."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` sends nothing (`wandb sync` does so later); `online` also sends the run while it goes on. The variable
    WANDB_MODE has precedence."""


class NoTracking(Spec):
    """Keep the run directory only."""

    kind: Literal["none"] = "none"


Tracking = Annotated[TrackerKind | NoTracking, Open("trackers", closed=(NoTracking,))]
