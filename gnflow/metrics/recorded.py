"""The metrics that trainer and optimizers keep by themselves: to declare one is to have its columns recorded."""

from gnflow.metrics.protocol import Metric, Subject
from gnflow.spec import training


def cost(spec: training.Cost, subject: Subject) -> Metric:
    """The recorder counts costs by the plan."""
    return Metric()


def update_norms(spec: training.UpdateNorms, subject: Subject) -> Metric:
    """Every optimizer returns the norms with its step."""
    return Metric()
