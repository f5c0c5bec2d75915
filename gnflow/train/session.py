"""One process at work on a run: step, evaluate, record, save; stop when told to, or when a loss is not finite."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gnflow import trees
from gnflow.compiler.plan import Plan
from gnflow.compiler.program import Program, State
from gnflow.data.batches import Batches
from gnflow.data.multimodal.mixture import MixedBatches
from gnflow.errors import DiskProblem, Diverged, GnflowError
from gnflow.metrics.evaluation import due
from gnflow.objective import Params
from gnflow.train import checkpoint, divergence, results
from gnflow.train.journal import Journal, Step
from gnflow.train.recorder import Recorder, diverging, numbers
from gnflow.train.samples import Sampler
from gnflow.train.signals import Stop

REQUEST = "save"  # in the run directory: who touches it asks for a checkpoint after this step; then it is gone


@dataclass
class Session:
    """What the steps of one process share."""

    plan: Plan
    program: Program
    batches: Batches | MixedBatches
    evaluation: Tensor | None
    """Held-out micro-batches; None when no loss is recorded."""
    directory: Path
    checkpoints: Path
    recorder: Recorder
    stop: Stop
    sampler: Sampler | None = None
    require_data: Callable[[], None] = lambda: None
    """Raises DataError when the data is no longer what it was; asked before every checkpoint."""
    saved: int | None = None
    """Step of the newest checkpoint."""
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def journal(self) -> Journal:
        """The run's journal."""
        return self.recorder.journal

    def begin(self, params: Params) -> State:
        """The state before the first step, recorded and saved."""
        # In one order, since sums over all weights follow it; aligned as torch aligns, wherever they were read from.
        ordered = trees.pick(params, self.program.template().params)
        state = self.program.init(trees.clone(ordered))
        self._conclude(state, {}, {}, 0.0)
        self._save(state)
        return state

    def resume(self, path: Path) -> State:
        """The state of a good checkpoint."""
        state = checkpoint.load(path, self.program.template(), self.program.device)
        self.saved = state.step
        return state

    def train(self, state: State) -> State:
        """Steps until the run is finished. Raises Diverged, Interrupted, Preempted or DiskProblem."""
        while not results.finished(self.plan, self.journal.steps[state.step]):
            if self.stop.received:
                raise self._left(state)
            state = self._advance(state)
        return state

    def _advance(self, state: State) -> State:
        step, before = state.step + 1, self._kept(state)
        start, compiled = time.perf_counter(), self.program.compile_seconds()
        state, metrics = self.program.step(state, self._batch(state.step))
        values = numbers(metrics)
        if self.program.device.type == "cuda":
            torch.cuda.synchronize(self.program.device)
        seconds = time.perf_counter() - start - (self.program.compile_seconds() - compiled)
        problem = diverging(values) or _unusable(state.params)
        if problem:
            raise self._diverged(step, problem)
        self._conclude(state, before, values, seconds)
        return state

    def _kept(self, state: State) -> Params:
        """A copy of the weights, where a measurement of the step that consumes them may ask for it."""
        asked = self.program.curvature is not None and self._evaluates(state.step + 1)
        return trees.clone(state.params) if asked else {}

    def _conclude(self, state: State, before: Params, values: Mapping[str, float], seconds: float) -> None:
        if self._evaluates(state.step):
            values = {**values, **self._evaluated(state, before)}
        record = self.recorder.step(state.step, values, seconds, self.program.compile_seconds())
        minutes = (time.monotonic() - self.saved_at) / 60
        if (
            self._keeps(state.step)
            or results.finished(self.plan, record)
            or (self.directory / REQUEST).is_file()
            or minutes >= self.plan.experiment.training.temporary_checkpoint_minutes
        ):
            self._save(state)

    def _evaluated(self, state: State, before: Params) -> Mapping[str, float]:
        """What is measured of these weights besides their training. Raises Diverged, DiskProblem."""
        values = {} if self.evaluation is None else numbers(self.program.evaluate(state.params, self.evaluation))
        if problem := diverging(values):
            raise self._diverged(state.step, problem)
        number = state.step // self.plan.experiment.training.evaluate_every
        last = results.finished(self.plan, Step(state.step, 0.0, values))
        curvature = self.program.curvature
        if self.evaluation is not None and curvature is not None and due(curvature.spec.every, number, last):
            values = {**values, **numbers(self.program.inspect(state, before, self.evaluation))}
        if self.sampler is None or not self.sampler.due(number, last):
            return values
        return {**values, **self.sampler.write(state.step, state.params)}

    def _evaluates(self, step: int) -> bool:
        return step % self.plan.experiment.training.evaluate_every == 0 or step >= self.plan.steps

    def _keeps(self, step: int) -> bool:
        return step > 0 and step % self.plan.experiment.training.checkpoint_every == 0

    def _batch(self, step: int) -> Tensor:
        return self.batches.take(step * self.plan.microbatches, self.plan.microbatches)

    def _save(self, state: State) -> None:
        if self.saved == state.step:
            return
        self.require_data()
        self.journal.sync()
        checkpoint.save(self.checkpoints, state)
        checkpoint.prune(self.checkpoints, state.step, self._keeps)
        results.write_metrics(self.directory, self.journal.steps)
        (self.directory / REQUEST).unlink(missing_ok=True)
        self.saved, self.saved_at = state.step, time.monotonic()

    def _left(self, state: State) -> GnflowError:
        self._save(state)
        results.write_summary(self.directory, self.plan, self.journal.steps, state.step, results.PREEMPTED)
        return self.stop.error(f"stopped after step {state.step} of {self.plan.steps}; the same command resumes")

    def _diverged(self, step: int, problem: str) -> Diverged:
        """Goes back to the weights before `step`, saves them, and asks which micro-batch it was."""
        count = self.plan.microbatches
        message = f"step {step}: {problem}"
        if step == 0:
            message += "; the starting weights are to blame"
        else:
            before = self._replayed(step - 1)
            found = divergence.cause(self.program, before.params, self.batches, (step - 1) * count, count)
            message += f"; {found}"
            self._save(before)
        self.recorder.event(step, "diverged", message)
        self.journal.sync()
        results.write_summary(self.directory, self.plan, self.journal.steps, max(step - 1, 0), results.DIVERGED)
        cure = "a smaller learning rate is the usual cure, under another name or with --fresh"
        return Diverged(f"{message}.\nThe weights before it are saved; {cure}.")

    def _replayed(self, step: int) -> State:
        found = checkpoint.newest(self.checkpoints, lambda saved: saved <= step)
        if found.path is None:
            raise DiskProblem(f"{self.checkpoints} has no good checkpoint up to step {step}")
        state = checkpoint.load(found.path, self.program.template(), self.program.device)
        while state.step < step:
            state, _ = self.program.step(state, self._batch(state.step))
        return state


def _unusable(params: Params) -> str | None:
    finite = torch.stack([value.isfinite().all() for value in params.values()])
    if bool(finite.all()):
        return None
    return f"the update makes `{list(params)[int(finite.int().argmin())]}` non-finite"
