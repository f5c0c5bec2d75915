"""Metrics that the trainer and the optimizers compute anyway. A spec that declares one records its columns."""

from gnflow.metrics.protocol import Metric, Subject
from gnflow.spec import training


def build_cost(spec: training.Cost, subject: Subject) -> Metric:
    """Build the metric of costs, which the recorder counts by the plan."""
    return Metric()


def build_update_norms(spec: training.UpdateNorms, subject: Subject) -> Metric:
    """Build the metric of norms, which every optimizer returns with its step."""
    return Metric()
