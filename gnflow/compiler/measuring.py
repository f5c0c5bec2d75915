"""Build and measure the metrics of a spec. The factory of each kind makes its metric, built in or not."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from gnflow.compiler import build
from gnflow.errors import SpecError
from gnflow.metrics.protocol import Metric, Moment, Subject
from gnflow.models.attention import Kernel
from gnflow.models.model import Model
from gnflow.objective import Metrics, Params
from gnflow.optim.descent import Probe
from gnflow.optim.protocol import Jit
from gnflow.spec.experiment import Experiment
from gnflow.spec.factory import call_factory, guard_plugin, make_fault
from gnflow.spec.training import MetricKind


def build_metrics(experiment: Experiment, network: Model, attention: Kernel, jit: Jit) -> tuple[Metric, ...]:
    """Build the metric of each kind that the spec declares, in the spec's order. Raises EnvironmentProblem.

    `attention` is the kernel that the `network` uses.
    """

    def build_plain() -> Model:
        return network if attention == "plain" else build.build_model(experiment, "plain")

    subject = Subject(experiment, network, lambda: build.build_exact(build_plain()), jit, build_plain)
    return tuple(call_factory(declared, Metric, declared, subject) for declared in experiment.metrics)


def join_probes(metrics: Iterable[Metric]) -> Probe | None:
    """Join the probes of all metrics into one. Return None if no metric has a probe."""
    probes = [metric.probe for metric in metrics if metric.probe is not None]
    if len(probes) < 2:
        return probes[0] if probes else None

    def probe(momentum: Params) -> Metrics:
        return {name: value for each in probes for name, value in each(momentum).items()}

    return probe


class NotedProbe:
    """The probes of all metrics, and whether an optimizer has called them. Only a plan uses it."""

    def __init__(self, experiment: Experiment, metrics: tuple[Metric, ...]) -> None:
        declared = zip(experiment.metrics, metrics, strict=True)
        self._kinds = [section.kind for section, metric in declared if metric.probe is not None]
        self._joined, self._called = join_probes(metrics), False

    @property
    def probe(self) -> Probe | None:
        """The probe to give to an optimizer; None if no metric measures a momentum."""
        return self._measure if self._joined else None

    def _measure(self, momentum: Params) -> Metrics:
        assert self._joined is not None
        self._called = True
        return self._joined(momentum)

    def require_called(self) -> None:
        """Raise SpecError for metrics that would never be measured."""
        if self._joined and not self._called:
            raise SpecError(
                f"metrics: `{'` and `'.join(self._kinds)}` measure a momentum, but the optimizer keeps none; "
                "use `muon` or `rmnp`, in a rule at least, or remove what measures it"
            )


def measure(declared: MetricKind, metric: Metric, at: Moment) -> Metrics:
    """Measure one metric on as many held-out micro-batches as it asked for.

    Raises EnvironmentProblem for columns that its kind does not declare, and for values that are not 0-D tensors.
    """
    with guard_plugin(declared, "`measure`"):
        found: object = metric.measure(at._replace(batch=at.batch[: metric.microbatches]))
    if not isinstance(found, Mapping):
        raise make_fault(declared, f"`measure` returned a {type(found).__name__}; expected columns and their values")
    for name, value in found.items():
        if not str(name).startswith(declared.columns):
            own = ", ".join(f"`{prefix}`" for prefix in declared.columns)
            raise make_fault(
                declared, f"it measured `{name}`, and its columns begin with {own}; rename it or add a prefix"
            )
        if not isinstance(value, Tensor) or value.ndim:
            what = f"has {value.ndim} axes" if isinstance(value, Tensor) else f"is a {type(value).__name__}"
            raise make_fault(declared, f"`{name}` {what}; expected a 0-D tensor")
    return dict(found)
