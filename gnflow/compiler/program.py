"""Make a Program of a Plan: regions are compiled, and the step around them stays plain Python."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow.compiler import build, methods, toolchain
from gnflow.compiler.average import Average, begin_average, follow
from gnflow.compiler.blocks import assign_blocks, divide_by_block
from gnflow.compiler.measuring import build_metrics, join_probes, measure
from gnflow.compiler.parts import assign_parts
from gnflow.compiler.plan import Plan
from gnflow.compiler.regions import Compiler, Notice, ignore_notice
from gnflow.crew import ALONE, Crew
from gnflow.errors import EnvironmentProblem
from gnflow.metrics.protocol import Metric, Moment
from gnflow.models.model import Model
from gnflow.objective import Metrics, Objective, Params, Tokens
from gnflow.optim.by_part import Ownership
from gnflow.optim.protocol import AnyState, Jit, Optimizer, eager
from gnflow.spec.training import WeightAverage


class State(NamedTuple):
    """Everything that a step passes to the next."""

    step: int
    params: Params
    optimizer: AnyState
    average: Average | None = None
    """The average of the weights, if the spec asks for one."""


@dataclass(frozen=True)
class Program:
    """The functions of a run. The optimizer uses `objective`; `initial` draws the model's initial weights."""

    plan: Plan
    device: torch.device
    network: Model
    objective: Objective
    optimizer: Optimizer
    initial: Callable[[], Params]
    compiler: Compiler | None
    metrics: tuple[Metric, ...] = ()
    """The metrics of the spec, in its order."""

    @property
    def _rule(self) -> WeightAverage | None:
        return self.plan.experiment.training.average

    def init(self, params: Params | None = None) -> State:
        """Return the state before the first step, with these weights or else with the model's initial ones."""
        params = self.initial() if params is None else params
        return State(0, params, self.optimizer.init(params), begin_average(self._rule, params))

    def make_template(self) -> State:
        """Return a state on the meta device. It has the shapes and types that a checkpoint must have."""
        shapes = {row.name: torch.empty(row.shape, device="meta") for row in self.plan.parameters}
        return State(0, shapes, self.optimizer.init(shapes), begin_average(self._rule, shapes))

    def step(self, state: State, batch: Tensor) -> tuple[State, Metrics]:
        """Take one step on (microbatches, rows, time + 1) tokens from any device. It consumes the state."""
        params, optimizer, metrics = self.optimizer.step(self.objective, state.params, state.optimizer, batch)
        self._hold_to_budget(state.step)
        average = follow(state.average, self._rule, params, state.step + 1, self.plan.steps)
        return State(state.step + 1, params, optimizer, average), metrics

    def join_blocks(self, state: State) -> State:
        """Return the state with the blocks that other processes have solved for. All processes call it."""
        return state._replace(optimizer=self.optimizer.join_blocks(state.optimizer, self.objective.crew))

    def whole(self, state: State) -> State:
        """Return the state with all that other processes own. All processes call it."""
        state = self.join_blocks(state)
        return state._replace(optimizer=self.optimizer.whole(state.params, state.optimizer, self.objective.crew))

    def make_moment(self, state: State, batch: Tensor, before: Params | None = None) -> Moment:
        """Return the moment for metrics to look at. `before` are the weights that the last step started from."""
        held_out = batch.to(self.device)
        return Moment(
            state.step, state.params, before or {}, self.optimizer, state.optimizer, self.objective, held_out
        )  # fmt: skip

    def evaluate(self, at: Moment, due: Callable[[Metric], bool] = lambda metric: True) -> Metrics:
        """Measure the metrics that are `due`. Raises EnvironmentProblem for a metric that breaks its protocol."""
        found: Metrics = {}
        for declared, metric in zip(self.plan.experiment.metrics, self.metrics, strict=True):
            if due(metric):
                found |= measure(declared, metric, at)
        return found

    def count_graphs(self) -> dict[str, int]:
        """Count the compiled graphs of each region."""
        return self.compiler.count_graphs() if self.compiler else {}

    def sum_compile_seconds(self) -> float:
        """Return the seconds of compilation so far."""
        return self.compiler.sum_seconds() if self.compiler else 0.0

    def _hold_to_budget(self, step: int) -> None:
        """Raise EnvironmentProblem if a region was compiled more often than the spec allows."""
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


def compile(  # noqa: A001  # the verb of the design
    plan: Plan,
    compiled: bool = True,
    network: Model | None = None,
    notice: Notice = ignore_notice,
    crew: Crew = ALONE,
) -> Program:
    """Build the functions of a plan and set torch's float32 precision. A graph is compiled at its first call.

    `network` is the network of the plan, if it has been built already. `notice` is called with the name of each region
    before its first call. `crew` are the processes of the run.

    Raises EnvironmentProblem for a missing GPU and for a metric that cannot be built.
    """
    experiment = plan.experiment
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem("training.device is `cuda`, but torch sees no GPU; use `auto` or `cpu`")
    mode = experiment.compile.mode
    torch.set_float32_matmul_precision("high" if experiment.training.precision == "tf32" else "highest")
    if compiled and mode != "off" and (lack := toolchain.find_problem(plan.device)):
        warnings.warn(f"running eagerly, which is slower: {lack}", stacklevel=2)
        compiled = False
    compiler = (
        None if mode == "off" or not compiled else Compiler(mode, experiment.compile.max_graph_breaks == 0, notice)
    )
    jit: Jit = compiler or eager
    network = network or build.build_model(experiment, plan.attention)
    metrics = build_metrics(experiment, network, plan.attention, jit)
    blocks = {name: block.names for name, block in plan.blocks.items()}
    problem = divide_by_block(build.build_objective(network, experiment, plan.recomputed), blocks, jit)
    crew = crew.divide(experiment.training.shares, assign_blocks(plan.blocks, crew.size))
    ownership = find_ownership(plan, crew)
    probe, seed = join_probes(metrics), experiment.training.seed
    optimizer = methods.build_optimizer(experiment.optimizer, network, plan.steps, jit, probe, seed, ownership)
    device = torch.device(plan.device)
    return Program(
        plan,
        device,
        network,
        place(problem._replace(crew=crew), device),
        optimizer,
        lambda: network.init(experiment.training.seed, device),
        compiler,
        metrics,
    )


def find_ownership(plan: Plan, crew: Crew) -> Ownership | None:
    """Return which process owns which part of an update; None if updates are made on stacks."""
    if not plan.parts:
        return None
    # A process that solves for whole blocks has all of their parts.
    return Ownership(crew.rank, {} if plan.blocks else assign_parts(plan.parts, crew.size))


def place(objective: Objective, device: torch.device) -> Objective:
    """Make an objective for micro-batches on any device. Each moves to `device` only when it is needed."""

    def move_to_device(tokens: Tokens) -> Tokens:
        return tokens.to(device, non_blocking=True)

    curved_value = objective.curved_value
    return Objective(
        lambda params, tokens: objective.value(params, move_to_device(tokens)),
        lambda params, tokens: objective.gradient(params, move_to_device(tokens)),
        lambda params, anchor, tokens: objective.curved(params, anchor, move_to_device(tokens)),
        lambda direction, anchor, tokens: objective.product(direction, anchor, move_to_device(tokens)),
        lambda tokens: objective.weight(move_to_device(tokens)),
        lambda params, noise, tokens: objective.diagonal(params, noise.to(device), move_to_device(tokens)),
        lambda params, noise, watch, tokens: objective.signals(params, noise.to(device), watch, move_to_device(tokens)),
        curved_value and (lambda params, anchor, tokens: curved_value(params, anchor, move_to_device(tokens))),
        objective.crew,
    )
