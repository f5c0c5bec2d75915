"""Experiment -> Plan: every size and cost of a run, known before a byte is allocated."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

import torch

from gnflow import trees
from gnflow.compiler import build, methods
from gnflow.compiler.blocks import BlockRegion, as_product, block_regions, layerwise, redirected
from gnflow.compiler.cost import RegionCost, nbytes, region_cost
from gnflow.compiler.measuring import NotedProbe, build_metrics
from gnflow.compiler.pace import require_fit
from gnflow.compiler.routing import routing
from gnflow.errors import SpecError
from gnflow.models.attention import Kernel
from gnflow.models.model import Model
from gnflow.objective import Objective, Params
from gnflow.optim.conjugate_gradients import ConjugateGradients
from gnflow.optim.descent import Descent, Probe
from gnflow.optim.frozen import Frozen
from gnflow.optim.gauss_newton import GaussNewton
from gnflow.optim.protocol import AnyState, Cost, Optimizer, Region, eager
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment

MIB = 2**20


class Parameter(NamedTuple):
    """One row of the parameter table."""

    name: str
    shape: tuple[int, ...]
    block: str
    rule: str
    method: str
    learning_rate: float


@dataclass(frozen=True)
class Plan:
    """What will run, and what it will cost. One step is one step of the outer optimizer."""

    experiment: Experiment
    device: str
    attention: Kernel
    steps: int
    parameters: tuple[Parameter, ...]
    cost: Cost
    regions: dict[str, RegionCost]
    blocks: dict[str, BlockRegion]
    """Of layerwise Gauss-Newton alone."""
    memory: dict[str, int]
    """Bytes by class. Activations are those of an eager run: compiled regions stay below."""
    recomputed: bool
    """Whether the reverse pass takes the blocks of the model again, to keep within `compile.activations`."""

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.cost.microbatches

    @property
    def tokens_microbatch(self) -> int:
        """Tokens predicted in one micro-batch."""
        return self.experiment.training.rows * self.experiment.data.context

    @property
    def tokens_solve(self) -> int:
        """Tokens of one step that shape the update."""
        return self.cost.solve * self.tokens_microbatch

    @property
    def tokens_search(self) -> int:
        """Further tokens of one step, spent on the choice of its length."""
        return self.cost.search * self.tokens_microbatch

    @property
    def passes(self) -> int:
        """Passes of one step that must follow one another."""
        return self.cost.passes

    @property
    def flops(self) -> int:
        """FLOPs of one step, counted in matrix products."""
        return round(sum(calls * self.regions[region].flops for region, calls in self.cost.calls.items()))

    def to_json(self) -> dict[str, object]:
        """The content of plan.json."""
        return {
            "name": self.experiment.name,
            "device": self.device,
            "attention": self.attention,
            "steps": self.steps,
            "parameters": sum(prod(row.shape) for row in self.parameters),
            "step": {
                "microbatches": self.microbatches,
                "tokens/solve": self.tokens_solve,
                "tokens/search": self.tokens_search,
                "tokens/total": self.tokens_solve + self.tokens_search,
                "passes/serial": self.passes,
                "flops": self.flops,
                "calls": dict(self.cost.calls),
            },
            "run": {
                "tokens/total": self.steps * (self.tokens_solve + self.tokens_search),
                "passes/serial": self.steps * self.passes,
                "flops": self.steps * self.flops,
            },
            "regions": {name: cost._asdict() for name, cost in self.regions.items()},
            "blocks": {name: {"region": b.region, "share": b.share} for name, b in self.blocks.items()},
            "memory": self.memory,
            "recomputed": self.recomputed,
            "table": [row._asdict() for row in self.parameters],
        }


def plan(experiment: Experiment, attention: Kernel | None = None) -> Plan:
    """Pure but for the question whether there is a GPU, and the import of what the spec names.

    Raises SpecError for rules that do not fit the model, for schedules that do not fit into the run and for metrics
    that would never be measured, and EnvironmentProblem for a metric that cannot be built.
    """
    attention = attention or build.kernel(experiment)
    network = build.model(experiment, attention)
    steps = _steps(experiment, methods.optimizer(experiment.optimizer, network, 1, _Costs()).cost)
    require_fit(experiment.optimizer, steps)
    noted = NotedProbe(experiment, build_metrics(experiment, network, attention, eager))
    optimizer, costs, blocks, memory = _measured(experiment, network, steps, noted.probe, recomputed=False)
    recomputed = not _fits(experiment, memory)
    if recomputed:
        optimizer, costs, blocks, memory = _measured(experiment, network, steps, noted.probe, recomputed=True)
        if not _fits(experiment, memory):
            raise _too_large(experiment, costs)
    noted.require_called()
    return Plan(
        experiment=experiment,
        device=_device(experiment),
        attention=attention,
        steps=steps,
        parameters=_table(experiment, network),
        cost=redirected(optimizer.cost, blocks),
        regions=costs.regions,
        blocks=blocks,
        memory=memory,
        recomputed=recomputed,
    )


class _Measured(NamedTuple):
    optimizer: Optimizer
    costs: "_Costs"
    blocks: dict[str, BlockRegion]
    memory: dict[str, int]


def _measured(experiment: Experiment, network: Model, steps: int, probe: Probe | None, recomputed: bool) -> _Measured:
    costs = _Costs()
    optimizer = methods.optimizer(experiment.optimizer, network, steps, costs, probe)
    problem = build.objective(network, experiment, recomputed)
    return _Measured(optimizer, costs, *_measure(experiment, network, problem, optimizer, costs))


def _fits(experiment: Experiment, memory: dict[str, int]) -> bool:
    most = experiment.compile.activations
    return most is None or memory["activations"] <= most * MIB


def _too_large(experiment: Experiment, costs: "_Costs") -> SpecError:
    region, cost = max(costs.regions.items(), key=lambda each: each[1].peak_bytes)
    return SpecError(
        f"compile.activations is {experiment.compile.activations} MiB; `{region}` needs at least "
        f"{ceil(cost.peak_bytes / MIB)}. Allow that, or take fewer `training.rows` and more micro-batches"
    )


class _Costs:
    """A `Jit` that measures each region at its first call."""

    def __init__(self) -> None:
        self.regions: dict[str, RegionCost] = {}

    def __call__(self, name: str, region: Region, /) -> Region:
        def measured(*arguments: object) -> object:
            if name not in self.regions:
                self.regions[name] = region_cost(region, *arguments)
            return region(*arguments)

        return measured  # type: ignore[return-value]  # a wrapper of the same signature


def _measure(
    experiment: Experiment, network: Model, problem: Objective, optimizer: Optimizer, costs: _Costs
) -> tuple[dict[str, BlockRegion], dict[str, int]]:
    """Runs each region that the optimizer calls once, on the meta device -> (regions of blocks, memory)."""
    params = network.init(experiment.training.seed, "meta")
    moving = trees.pick(params, network.moving)
    tokens = torch.empty(build.microbatch_shape(experiment), dtype=torch.int64, device="meta")
    if isinstance(optimizer, Frozen):
        optimizer = optimizer.inner
    blocks = block_regions(network, problem, params, tokens) if layerwise(optimizer) else {}
    arguments: dict[str, tuple[object, ...]] = {
        "value": (params, tokens),
        "gradient": (params, tokens),
        "curved": (moving, params, tokens),
        "product": (moving, params, tokens),
    }
    for block in blocks.values():
        for name in (block.region, as_product(block.region)):
            arguments.setdefault(name, (trees.pick(params, block.names), params, tokens))
    for name in arguments:
        if name != "value" and name not in redirected(optimizer.cost, blocks).calls:
            continue
        region: Callable[..., object] = getattr(problem, name.split(".")[0])
        costs.regions[name] = region_cost(region, *arguments[name])
    state = optimizer.init(moving)
    standing_in = problem._replace(
        gradient=lambda at, tokens: (trees.zeros(at), torch.empty((), device="meta")),
        product=lambda direction, at, tokens: trees.zeros(direction),
    )
    for part, suffix, own, inner in _inner(optimizer, moving, state):
        batch, seen = tokens.expand(part.microbatches, *tokens.shape), own
        if isinstance(part, Descent):
            slope, _, _ = part.slope(standing_in, own, inner, batch)
            part.update(slope, inner, part.stacks.stack(own))
            seen = slope.factors
        else:
            part.step(standing_in, own, inner, batch)
        if isinstance(part, Descent | ConjugateGradients) and "refresh" in part.cost.calls:
            costs.regions[f"refresh{suffix}"] = region_cost(part.refresh, seen, inner)
    return blocks, {
        "parameters": nbytes(params),
        **({"average": nbytes(params)} if experiment.training.average else {}),
        "optimizer": nbytes(state),
        "gradients": 2 * nbytes(moving),
        "activations": max(cost.peak_bytes for cost in costs.regions.values()),
        "batch": optimizer.cost.microbatches * tokens.numel() * tokens.element_size(),
    }


def _inner(optimizer: Optimizer, params: Params, state: AnyState) -> Iterator[tuple[Optimizer, str, Params, AnyState]]:
    """(optimizer, what the names of its regions end with, parameters, state), for each block."""
    if isinstance(optimizer, GaussNewton):
        for name, block in optimizer.blocks.items():
            yield block.inner, block.suffix, trees.pick(params, block.names), state.inner[name]
    else:
        yield optimizer, "", params, state


def _steps(experiment: Experiment, cost: Cost) -> int:
    training = experiment.training
    if training.steps is not None:
        return training.steps
    return ceil((training.tokens or 0) / (cost.microbatches * training.rows * experiment.data.context))


def _device(experiment: Experiment) -> str:
    wanted = experiment.training.device
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _table(experiment: Experiment, network: Model) -> tuple[Parameter, ...]:
    method = experiment.optimizer
    follows = method.inner if isinstance(method, spec.GaussNewton) else method
    solved = isinstance(follows, spec.ConjugateGradients)
    rules, routes = ({}, {}) if isinstance(follows, spec.ConjugateGradients) else routing(follows, network)
    block = {name: block for block, names in network.blocks.items() for name in names}

    def row(name: str) -> Parameter:
        shape = network.weights[name].shape
        if name in network.frozen:
            return Parameter(name, shape, block[name], "frozen", "none", 0.0)
        if solved:
            return Parameter(name, shape, block[name], "all", "cg", 1.0)
        rule = rules[routes[name]]
        return Parameter(name, shape, block[name], routes[name], rule.kind, rule.rate or 0.0)

    return tuple(row(name) for name in network.weights)
