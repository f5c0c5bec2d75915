"""Plan -> Program: the regions compiled, the step around them in plain Python."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow.compiler import build, methods, toolchain
from gnflow.compiler.blocks import as_product, dispatched, dispatched_product
from gnflow.compiler.plan import Plan
from gnflow.compiler.regions import Compiler
from gnflow.errors import EnvironmentProblem
from gnflow.metrics.curvature import Curvature, Moment
from gnflow.metrics.evaluation import Measure
from gnflow.models.model import Model
from gnflow.objective import Metrics, Objective, Params
from gnflow.optim.protocol import AnyState, Jit, Optimizer, eager, through


class State(NamedTuple):
    """Everything that one step hands to the next."""

    step: int
    params: Params
    optimizer: AnyState


@dataclass(frozen=True)
class Program:
    """A run's functions. `objective` is what the optimizer sees; `initial` draws the model's first weights."""

    plan: Plan
    device: torch.device
    objective: Objective
    optimizer: Optimizer
    initial: Callable[[], Params]
    compiler: Compiler | None
    measures: tuple[Measure, ...] = ()
    curvature: Curvature | None = None
    """Measures what an evaluation may ask for besides: it looks at the last step, too."""

    def init(self, params: Params) -> State:
        """The state before the first step."""
        return State(0, params, self.optimizer.init(params))

    def template(self) -> State:
        """A state on the meta device: the shapes and types that a checkpoint must have."""
        shapes = {row.name: torch.empty(row.shape, device="meta") for row in self.plan.parameters}
        return State(0, shapes, self.optimizer.init(shapes))

    def step(self, state: State, batch: Tensor) -> tuple[State, Metrics]:
        """One step on (microbatches, rows, time + 1) tokens; the state is consumed."""
        params, optimizer, metrics = self.optimizer.step(
            self.objective, state.params, state.optimizer, batch.to(self.device, non_blocking=True)
        )
        self._hold_to_budget(state.step)
        return State(state.step + 1, params, optimizer), metrics

    def evaluate(self, params: Params, batch: Tensor) -> Metrics:
        """What the declared metrics say on held-out micro-batches."""
        batch = batch.to(self.device)
        found = [measure(self.objective, params, batch) for measure in self.measures]
        return {name: value for metrics in found for name, value in metrics.items()}

    def inspect(self, state: State, before: Params, batch: Tensor) -> Metrics:
        """The curvature on held-out micro-batches; `before` has the weights that the last step started from, if any."""
        if self.curvature is None:
            return {}
        return self.curvature.measure(Moment(state.params, before, state.optimizer), batch.to(self.device))

    def graphs(self) -> dict[str, int]:
        """Compiled graphs by region."""
        return self.compiler.graphs() if self.compiler else {}

    def compile_seconds(self) -> float:
        """Seconds of compilation so far."""
        return self.compiler.seconds() if self.compiler else 0.0

    def _hold_to_budget(self, step: int) -> None:
        """Raises EnvironmentProblem when a region was compiled more often than the spec allows."""
        budget = self.plan.experiment.compile
        for region in self.compiler.regions if self.compiler else ():
            recompiles = len(region.compilations) - 1
            breaks = max(region.compilations, default=1) - 1
            for found, allowed, what, key in (
                (recompiles, budget.max_recompiles, "recompilations", "max_recompiles"),
                (breaks, budget.max_graph_breaks, "graph breaks", "max_graph_breaks"),
            ):
                if found > allowed:
                    raise EnvironmentProblem(
                        f"step {step}: region `{region.name}` has {found} {what}; compile.{key} allows {allowed}. "
                        "Run with TORCH_LOGS=recompiles,graph_breaks to see why, or raise the budget."
                    )


def compile(plan: Plan, compiled: bool = True) -> Program:  # noqa: A001  # the verb of the design
    """Builds the functions of a plan; graphs are compiled at their first call. Sets torch's float32 precision.

    Raises EnvironmentProblem for a GPU that is not there.
    """
    experiment = plan.experiment
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem("training.device is `cuda`, but torch sees no GPU; use `auto` or `cpu`")
    mode = experiment.compile.mode
    torch.set_float32_matmul_precision("high" if experiment.training.precision == "tf32" else "highest")
    if compiled and mode != "off" and (lack := toolchain.problem(plan.device)):
        warnings.warn(f"running eagerly, which is slower: {lack}", stacklevel=2)
        compiled = False
    compiler = None if mode == "off" or not compiled else Compiler(mode, experiment.compile.max_graph_breaks == 0)
    jit: Jit = compiler or eager
    network = build.model(experiment, plan.attention)
    problem = _compiled(build.objective(network, experiment, plan.recomputed), plan, network, jit)
    optimizer = methods.optimizer(experiment.optimizer, network, plan.steps, jit, build.probe(experiment))
    device = torch.device(plan.device)
    measures = build.measures(experiment, network, jit)
    return Program(
        plan,
        device,
        problem,
        optimizer,
        lambda: network.init(experiment.training.seed, device),
        compiler,
        measures,
        build.probed(experiment, optimizer),
    )


def _compiled(problem: Objective, plan: Plan, network: Model, jit: Jit) -> Objective:
    own = {block.names: block.region for block in plan.blocks.values() if block.region != "curved"}
    return blockwise(problem, own, network, jit) if plan.blocks else through(problem, jit)


def blockwise(problem: Objective, own: Mapping[tuple[str, ...], str], network: Model, jit: Jit) -> Objective:
    """The regions of an optimizer that solves block by block: `own` has the blocks with one to themselves."""
    regions = through(problem, jit)
    curved = {frozenset(names): jit(region, problem.curved) for names, region in own.items()}
    product = {frozenset(names): jit(as_product(region), problem.product) for names, region in own.items()}
    return regions._replace(
        curved=dispatched(regions.curved, curved, network.moving),
        product=dispatched_product(regions.product, product, network.moving),
    )
