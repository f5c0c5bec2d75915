"""Plan an experiment: compute every size and cost of a run before a byte is allocated."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cached_property
from math import ceil, prod
from typing import NamedTuple

import torch

from gnflow.compiler import build, methods
from gnflow.compiler.blocks import BlockRegion, divide_by_block, find_blocks, price_blocks
from gnflow.compiler.evaluation import Evaluation, price_evaluations
from gnflow.compiler.extrapolation import shorten_search
from gnflow.compiler.measuring import NotedProbe, build_metrics, join_probes
from gnflow.compiler.metering import Meter, RegionCost
from gnflow.compiler.pace import require_fit
from gnflow.compiler.parts import PartCost, price_parts
from gnflow.compiler.routing import route_parameters
from gnflow.compiler.storages import count_bytes
from gnflow.crew import Crew
from gnflow.errors import SpecError
from gnflow.models.attention import Kernel
from gnflow.models.model import Model
from gnflow.optim.by_part import Ownership
from gnflow.optim.descent import Probe
from gnflow.optim.protocol import Cost, eager
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.huggingface import HuggingFaceModel
from gnflow.spec.training import Pretrained

MIB = 2**20


class Parameter(NamedTuple):
    """A row of the table of parameters."""

    name: str
    shape: tuple[int, ...]
    block: str
    rule: str
    method: str
    learning_rate: float


@dataclass(frozen=True)
class Plan:
    """The parts of a run and their costs. A step is one step of the outer optimizer."""

    experiment: Experiment
    device: str
    attention: Kernel
    steps: int
    parameters: tuple[Parameter, ...]
    cost: Cost
    calls: Mapping[str, float]
    """Region -> its calls in one step. Work that is due once in several updates counts as a fraction of a call."""
    regions: dict[str, RegionCost]
    blocks: dict[str, BlockRegion]
    """Block -> its region, for layerwise Gauss-Newton; empty for all other methods."""
    parts: dict[str, PartCost]
    """Part -> its cost, if updates are made by parts (`compile.update`); empty if not."""
    memory: dict[str, int]
    """Bytes by class at the peak of an eager step. Compiled regions need less.

    `activations` were made by the region that runs at the peak, `copies` by the rest of the step.
    """
    observed: dict[int, float]
    """How many numbers an estimate of curvature has -> estimates in one step, one for each micro-batch."""
    recomputed: bool
    """Return whether the reverse pass computes the blocks of the model again, to keep within `compile.activations`."""
    held_out: int
    """Number of held-out micro-batches of an evaluation: the most that any metric asks for."""

    @property
    def microbatches(self) -> int:
        """Number of micro-batches that one step consumes."""
        return self.cost.microbatches

    def find_first_microbatch(self, step: int) -> int:
        """Return the number of the first micro-batch that `step` (counted from 1) consumes."""
        return (step - 1) * self.microbatches

    @property
    def tokens_microbatch(self) -> int:
        """Number of tokens that are predicted in one micro-batch."""
        return self.experiment.training.rows * self.experiment.data.context

    @property
    def tokens_solve(self) -> int:
        """Number of tokens of one step that shape the update."""
        return self.cost.solve * self.tokens_microbatch

    @property
    def tokens_search(self) -> int:
        """Number of further tokens of one step, which are spent on the choice of its length."""
        return self.cost.search * self.tokens_microbatch

    @property
    def passes(self) -> int:
        """Number of passes of one step that must follow one another."""
        return self.cost.passes

    @property
    def flops(self) -> int:
        """FLOPs of one step, counted in matrix products."""
        return round(sum(calls * self.regions[region].flops for region, calls in self.calls.items()))

    @cached_property
    def evaluation(self) -> Evaluation:
        """The schedule of evaluations on held-out data, and their cost relative to the steps."""
        blocks = len({row.block for row in self.parameters})
        return price_evaluations(self.experiment, self.steps, self.flops, self.regions, blocks)

    @property
    def start(self) -> str:
        """The directory of the pretrained weights that the run starts from; empty if there are none."""
        model, start = self.experiment.model, self.experiment.training.start
        return model.path if isinstance(model, HuggingFaceModel) and isinstance(start, Pretrained) else ""

    def to_json(self) -> dict[str, object]:
        """Return the content of plan.json."""
        return {
            "name": self.experiment.name,
            "device": self.device,
            "attention": self.attention,
            "steps": self.steps,
            **({"start": start} if (start := self.start) else {}),
            "parameters": sum(prod(row.shape) for row in self.parameters),
            "step": {
                "microbatches": self.microbatches,
                "tokens/solve": self.tokens_solve,
                "tokens/search": self.tokens_search,
                "tokens/total": self.tokens_solve + self.tokens_search,
                "passes/serial": self.passes,
                "flops": self.flops,
                "calls": dict(self.calls),
            },
            "run": {
                "tokens/total": self.steps * (self.tokens_solve + self.tokens_search),
                "passes/serial": self.steps * self.passes,
                "flops": self.steps * self.flops,
            },
            "evaluation": {
                "every": self.evaluation.every,
                "times": self.evaluation.times,
                "passes": self.evaluation.passes,
                "flops": self.evaluation.flops,
                "share": self.evaluation.share,
            },
            "regions": {name: cost._asdict() for name, cost in self.regions.items()},
            "blocks": {name: {"region": b.region, "share": b.share} for name, b in self.blocks.items()},
            **({"parts": {name: part._asdict() for name, part in self.parts.items()}} if self.parts else {}),
            "memory": self.memory,
            "recomputed": self.recomputed,
            "table": [row._asdict() for row in self.parameters],
        }


def plan(experiment: Experiment, attention: Kernel | None = None) -> Plan:
    """Plan an experiment. It only looks whether there is a GPU and imports the kinds that the spec names.

    Raises SpecError for rules that do not fit the model, for schedules that do not fit into the run and for metrics
    that would never be measured, and EnvironmentProblem for a metric that cannot be built.
    """
    attention = attention or build.choose_kernel(experiment)
    network = build.build_model(experiment, attention)
    metrics = build_metrics(experiment, network, attention, eager)
    noted = NotedProbe(experiment, metrics)
    found = _measure_step(experiment, network, noted.probe, recomputed=False)
    recomputed = not _is_within_budget(experiment, found)
    if recomputed:
        found = _measure_step(experiment, network, noted.probe, recomputed=True)
        if not _is_within_budget(experiment, found):
            raise _explain_too_large(experiment, found)
    noted.require_called()
    steps = _count_steps(experiment, found.cost)
    require_fit(experiment.optimizer, steps)
    return Plan(
        experiment=experiment,
        device=choose_device(experiment),
        attention=attention,
        steps=steps,
        parameters=_list_parameters(experiment, network),
        cost=found.cost,
        calls=found.calls,
        regions=found.regions,
        blocks=found.blocks,
        parts=found.parts,
        memory=found.memory,
        observed=found.observed,
        recomputed=recomputed,
        held_out=max((metric.microbatches for metric in metrics), default=0),
    )


class Measured(NamedTuple):
    """The measurements of one step on the meta device."""

    cost: Cost
    calls: Mapping[str, float]
    regions: dict[str, RegionCost]
    blocks: dict[str, BlockRegion]
    parts: dict[str, PartCost]
    memory: dict[str, int]
    observed: dict[int, float]


def measure_member(plan: Plan, crew: Crew, ownership: Ownership | None) -> dict[str, int]:
    """Return the bytes of a process of a crew, by class, beside those that it sends and receives."""
    experiment = plan.experiment
    network = build.build_model(experiment, plan.attention)
    probe = join_probes(build_metrics(experiment, network, plan.attention, eager))
    return _measure_step(experiment, network, probe, plan.recomputed, crew, ownership).memory


def _measure_step(
    experiment: Experiment,
    network: Model,
    probe: Probe | None,
    recomputed: bool,
    crew: Crew | None = None,
    ownership: Ownership | None = None,
) -> Measured:
    short = shorten_search(experiment)
    if short is None:
        return count_step(experiment, network, probe, recomputed, crew, ownership)
    first = count_step(short.first, network, probe, recomputed, crew, ownership)
    second = count_step(short.second, network, probe, recomputed, crew, ownership)
    return second._replace(
        cost=Cost(*map(short.continue_line, astuple(first.cost), astuple(second.cost))),
        calls=short.continue_all(first.calls, second.calls),
        memory={name: short.continue_line(first.memory[name], second.memory[name]) for name in second.memory},
    )


def count_step(
    experiment: Experiment,
    network: Model,
    probe: Probe | None = None,
    recomputed: bool = False,
    crew: Crew | None = None,
    ownership: Ownership | None = None,
) -> Measured:
    """Count one step with all of its micro-batches, on the meta device."""
    meter = Meter()
    # The number of steps matters to the schedule alone and changes no cost.
    by_part = experiment.compile.update == "parts"
    ownership = ownership or (Ownership() if by_part else None)
    optimizer = methods.build_optimizer(experiment.optimizer, network, 1, meter, probe, ownership=ownership)
    problem = build.build_objective(network, experiment, recomputed)
    params = network.init(experiment.training.seed, "meta")
    state = optimizer.init(params)
    tokens = torch.empty(build.find_microbatch_shape(experiment), dtype=torch.int64, device="meta")
    meter.storages.hold((params, state))
    with meter.storages:
        method = experiment.optimizer
        blocks: dict[str, BlockRegion] = {}
        if isinstance(method, spec.GaussNewton) and method.blocks != "full":
            named = find_blocks(network, method.blocks)
            blocks = price_blocks(network, named, problem, params, tokens, meter)
        objective = divide_by_block(problem, {name: block.names for name, block in blocks.items()}, meter)
        objective = objective._replace(crew=crew or Crew(experiment.training.shares))
        meter.storages.begin()
        optimizer.step(objective, params, state, tokens.expand(optimizer.microbatches, *tokens.shape))
        peak = meter.storages.peak
        if "value" not in meter.regions:
            meter.price("value", problem.value, params, tokens)  # for evaluations
    # A micro-batch moves to the device when the objective is evaluated on it.
    there = optimizer.microbatches if choose_device(experiment) == "cpu" else 1
    memory = {
        "parameters": count_bytes(params),
        **({"average": count_bytes(params)} if experiment.training.average else {}),
        "optimizer": count_bytes(state),
        "batch": there * count_bytes(tokens),
        "activations": peak.inside,
        "copies": peak.total - peak.inside - count_bytes((params, state)),
    }
    regions = {name: cost for name, cost in meter.regions.items() if name in {"value", *meter.calls}}
    parts = price_parts(optimizer.parts(params, state), meter) if by_part and crew is None else {}
    observed = meter.count_results("signals", "diagonal")
    return Measured(optimizer.cost, meter.calls, regions, blocks, parts, memory, observed)


def _is_within_budget(experiment: Experiment, found: Measured) -> bool:
    most = experiment.compile.activations
    return most is None or max(cost.peak_bytes for cost in found.regions.values()) <= most * MIB


def _explain_too_large(experiment: Experiment, found: Measured) -> SpecError:
    region, cost = max(found.regions.items(), key=lambda each: each[1].peak_bytes)
    return SpecError(
        f"compile.activations is {experiment.compile.activations} MiB; `{region}` needs at least "
        f"{ceil(cost.peak_bytes / MIB)} MiB. Raise it to that, or take fewer `training.rows` and more micro-batches"
    )


def _count_steps(experiment: Experiment, cost: Cost) -> int:
    training = experiment.training
    if training.steps is not None:
        return training.steps
    return ceil((training.tokens or 0) / (cost.microbatches * training.rows * experiment.data.context))


def choose_device(experiment: Experiment) -> str:
    """Return the device that the spec asks for; `auto` is a GPU if there is one."""
    wanted = experiment.training.device
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _list_parameters(experiment: Experiment, network: Model) -> tuple[Parameter, ...]:
    method = experiment.optimizer
    follows = method.inner if isinstance(method, spec.GaussNewton) else method
    solved = isinstance(follows, spec.ConjugateGradients)
    rules, routes = ({}, {}) if isinstance(follows, spec.ConjugateGradients) else route_parameters(follows, network)
    block = {name: block for block, names in network.blocks.items() for name in names}

    def make_row(name: str) -> Parameter:
        shape = network.weights[name].shape
        if name in network.frozen:
            return Parameter(name, shape, block[name], "frozen", "none", 0.0)
        if solved:
            return Parameter(name, shape, block[name], "all", "cg", 1.0)
        rule = rules[routes[name]]
        return Parameter(name, shape, block[name], routes[name], rule.kind, rule.shown_rate or 0.0)

    return tuple(make_row(name) for name in network.weights)
