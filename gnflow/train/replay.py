"""Take one step of a run again, eagerly: measure its tensors, and find the first one that is not finite."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gnflow import trees
from gnflow.compiler.plan import plan
from gnflow.compiler.program import Program, State
from gnflow.compiler.program import compile as compile_plan
from gnflow.data.prepare import prepare
from gnflow.errors import GnflowError
from gnflow.objective import Params
from gnflow.optim import means
from gnflow.train import checkpoint, provenance
from gnflow.train.changes import find_last_step
from gnflow.train.directory import CHECKPOINTS
from gnflow.train.feed import make_microbatches
from gnflow.train.journal import JOURNAL, Reading, read
from gnflow.train.past import ROLLED_BACK, SKIPPED, Past, make_beginning
from gnflow.train.recorder import to_numbers
from gnflow.train.reproducible import make_reproducible
from gnflow.train.run import Run
from gnflow.train.start import make_start
from gnflow.workspace import Workspace

Report = Callable[[str], None]


class NoSuchStep(GnflowError):
    """An error that means that the run has not taken the requested step."""

    exit_code = 2


class Layer(NamedTuple):
    """Measurements of one weight in the step."""

    name: str
    weight: float
    """2-norm of the weight before the step."""
    gradient: float | None
    """2-norm of the mean gradient over the micro-batches of the step; None for a frozen weight."""
    update: float
    """2-norm of the change that the step makes."""
    output: float | None
    """Root mean square of the first tensor computed with the weight, in the last micro-batch that was looked at."""


class NonFinite(NamedTuple):
    """The first tensor that is not finite, in the order in which a step computes them."""

    kind: str
    """One of `weight`, `output`, `loss`, `gradient` and `update`."""
    name: str
    microbatch: int | None
    """The number of the micro-batch in the run."""


class Replay(NamedTuple):
    """The result of taking a step again."""

    step: int
    device: str
    origin: int
    """The step of the checkpoint from which the state before the step was computed."""
    losses: list[float]
    """Loss of each micro-batch at the weights before the step."""
    metrics: dict[str, float]
    recorded: dict[str, float]
    """The record that the run has of the step; empty for a step that ended the run."""
    events: list[str]
    layers: list[Layer]
    first: NonFinite | None


def replay(run: Run, step: int, workspace: Workspace, report: Report = lambda line: None) -> Replay:
    """Take `step` of a run again. The state before it is recomputed from the newest good checkpoint before it.

    Raises NoSuchStep, DataError when the data changed, DiskProblem, EnvironmentProblem, and what `start` raises.
    """
    reading = read(run.directory / JOURNAL)
    with make_reproducible(workspace):
        planned = plan(run.experiment)
        _require_step(run, step, reading, planned.steps)
        dataset = prepare(run.experiment.data, workspace, report)
        provenance.require_same_data(run.directory, dataset.digest, dataset.directory)
        program = compile_plan(planned)
        past = Past(
            planned,
            program,
            make_microbatches(planned, dataset),
            run.directory / CHECKPOINTS,
            lambda: {event.step for event in reading.events if event.name in (SKIPPED, ROLLED_BACK)},
            lambda: make_beginning(program, make_start(planned, program, dataset, workspace, report)),
        )
        origin = _find_origin(past, step - 1, report)
        before = past.compute_state(step - 1)
        found = take_step(
            compile_plan(planned, compiled=False, network=program.network),
            before,
            past.take_batch(step),
            planned.find_first_microbatch(step),
        )
        recorded = reading.steps.get(step)
        events = [f"{event.name}: {event.message}" for event in reading.events if event.step == step]
        values = dict(recorded.values) if recorded else {}
        return found._replace(origin=origin, recorded=values, events=events)


def _require_step(run: Run, step: int, reading: Reading, steps: int) -> None:
    # If a run diverged, the step after the last record is the one that ended it.
    last = min(find_last_step(reading.steps) + 1, steps)
    if not 1 <= step <= last:
        raise NoSuchStep(f"{run.directory} has no step {step}; give a step from 1 to {last}")


def _find_origin(past: Past, step: int, report: Report) -> int:
    found = checkpoint.find_newest(past.checkpoints, up_to=step)
    for damaged, problem in found.damage.items():
        report(f"warning: checkpoint {checkpoint.make_path(past.checkpoints, damaged).name} is not used: {problem}")
    origin = 0 if found.path is None else checkpoint.read_step(found.path)
    if origin < step:
        named = "the starting weights" if found.path is None else f"checkpoint {found.path.name}"
        report(f"computing the {step - origin} steps before it again, from {named}")
    return origin


def take_step(program: Program, before: State, batch: Tensor, number: int) -> Replay:
    """Take the step on `batch`, whose first micro-batch is `number`, without changing the state."""
    batch = batch.to(program.device)
    slopes, losses, outputs, first = _inspect(program, before.params, batch, number)
    weights = trees.clone(before.params)
    after, metrics = program.step(State(before.step, *trees.clone((before.params, before.optimizer))), batch)
    updates = trees.subtract(after.params, weights)
    for name, update in updates.items():
        first = first or _find_non_finite("update", name, update)
    layers = [
        Layer(
            name,
            _compute_norm(weight),
            _compute_norm(slopes[name]) if name in slopes else None,
            _compute_norm(updates[name]),
            outputs.get(name),
        )
        for name, weight in weights.items()
    ]
    return Replay(before.step + 1, str(program.device), 0, losses, to_numbers(metrics), {}, [], layers, first)


def _inspect(
    program: Program, params: Params, batch: Tensor, number: int
) -> tuple[Params, list[float], dict[str, float], NonFinite | None]:
    """Compute gradient, losses and sizes of outputs before the step, and find the first that is not finite."""
    first: NonFinite | None = None
    for name, weight in params.items():
        first = first or _find_non_finite("weight", name, weight)
    counts = means.weigh_microbatches(program.objective, batch)
    slopes: Params = {}
    losses: list[float] = []
    sizes: dict[str, float] = {}
    for microbatch, (tokens, count) in enumerate(zip(batch, counts, strict=True), start=number):
        with torch.no_grad(), Outputs(params) as outputs:
            loss = program.objective.value(params, tokens)
        losses.append(loss.item())
        if first is None or first.kind == "weight":
            sizes = {name: output.float().square().mean().sqrt().item() for name, output in outputs.found.items()}
        slope, _ = program.objective.gradient(params, tokens)
        for kind, tensors in (("output", outputs.found), ("loss", {"loss": loss}), ("gradient", _reverse(slope))):
            for name, tensor in tensors.items():
                first = first or _find_non_finite(kind, name, tensor, microbatch)
        share = count / means.keep_positive(counts.sum())
        slopes = {name: slopes.get(name, 0) + share * tensor for name, tensor in slope.items()}
    return slopes, losses, sizes, first


def _reverse(slope: Params) -> Params:
    """Order weights from last to first, the order in which their gradients are computed."""
    return dict(reversed(slope.items()))


class Outputs(TorchFunctionMode):
    """A mode that records, for each weight, the first floating-point tensor that is computed with it."""

    def __init__(self, params: Params) -> None:
        self._names = {id(weight): name for name, weight in params.items()}
        self.found: Params = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `function` and record its result."""
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            for argument in (*args, *(kwargs or {}).values()):
                if (name := self._names.get(id(argument))) is not None:
                    self.found.setdefault(name, result)
        return result


def _find_non_finite(kind: str, name: str, tensor: Tensor, microbatch: int | None = None) -> NonFinite | None:
    return None if bool(tensor.isfinite().all()) else NonFinite(kind, name, microbatch)


def _compute_norm(tensor: Tensor) -> float:
    return float(tensor.double().norm())
