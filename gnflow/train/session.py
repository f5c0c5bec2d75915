"""One process that works on a run: it steps, evaluates, records, saves, and stops or undoes a step that failed."""

import math
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from signal import Signals

import torch
from torch import Tensor

from gnflow import trees
from gnflow.compiler.devices import share_out
from gnflow.compiler.plan import Plan
from gnflow.compiler.program import Program, State
from gnflow.crew import Crew
from gnflow.data.microbatches import Microbatches, Prepared, format_ids
from gnflow.errors import Diverged, GnflowError
from gnflow.metrics.protocol import measure_nothing
from gnflow.objective import Params
from gnflow.train import agreement, checkpoint, disk, divergence, offending, results
from gnflow.train.agreement import find_patience
from gnflow.train.clock import Clock, Taken
from gnflow.train.journal import Journal, Step
from gnflow.train.past import ROLLED_BACK, SKIPPED, Past, make_beginning
from gnflow.train.recorder import AVERAGE_LOSS, UNDONE, Recorder, find_divergence, to_numbers
from gnflow.train.signals import Stop
from gnflow.train.stragglers import SLOW, Stragglers

# Name in the run directory. Touching the file asks for a checkpoint after this step; then it is removed.
REQUEST = "save"

LOSS = "loss/held_out"


@dataclass
class Session:
    """The data that all steps of one process share."""

    plan: Plan
    program: Program
    batches: Microbatches
    evaluation: Tensor
    """Held-out micro-batches, as many as the most demanding metric asks for."""
    directory: Path
    checkpoints: Path
    recorder: Recorder
    stop: Stop
    require_data: Callable[[], None] = lambda: None
    """A function that raises DataError if the data has changed. It is called before every checkpoint."""
    read: offending.Read = format_ids
    """A function from a row of tokens to its text."""
    dataset: Prepared | None = None
    """The dataset of the batches, for metrics that need more than tokens."""
    saved: int | None = None
    """The step of the newest checkpoint."""
    saved_at: float = field(default_factory=time.monotonic)

    @cached_property
    def stragglers(self) -> Stragglers:
        """The times of the processes in the last steps."""
        return Stragglers([device.work for device in share_out(self.plan, self.crew.size)])

    @property
    def crew(self) -> Crew:
        """The processes that work on the run. All of them make the same calls of a session."""
        return self.program.objective.crew

    @property
    def journal(self) -> Journal:
        """The journal of the run."""
        return self.recorder.journal

    @property
    def past(self) -> Past:
        """The history of the run so far."""
        return Past(self.plan, self.program, self.batches, self.checkpoints, self._find_undone)

    def begin(self, params: Params) -> State:
        """Make, record and save the state before the first step. Raises Diverged."""
        state = make_beginning(self.program, params)
        values = self._evaluate(state, {})
        if problem := find_divergence(values):
            raise self._diverge(0, f"{problem}; the starting weights are to blame")
        self._conclude(state, values, Taken())
        if poor := divergence.describe_poor_start(values.get(LOSS), self.plan.experiment.data.vocabulary):
            self.recorder.record_event(0, "poor_start", poor)
        self._save(state)
        return state

    def resume(self, path: Path) -> State:
        """Load the state of a good checkpoint."""
        state = checkpoint.load(path, self.program.make_template(), self.program.device)
        self.saved = state.step
        return state

    def train(self, state: State) -> State:
        """Take steps until the run is finished. Raises Diverged, Interrupted, Preempted or DiskProblem."""
        while not results.is_finished(self.plan, self.journal.steps[state.step]):
            # Signals, files and clocks may differ between processes: what any of them wants, all do.
            signal, saves = self.crew.find_largest(self.stop.received or 0, self._wants_saving())
            if signal:
                self.stop.received = Signals(int(signal))
                raise self._leave(state)
            if saves:
                self._save(state)
            state = self._advance(state)
            self.crew.expect_within(find_patience(self.journal.steps.values()))
        return state

    def _wants_saving(self) -> bool:
        """Whether a user has asked for a checkpoint, or a temporary one is due."""
        minutes = (time.monotonic() - self.saved_at) / 60
        due = minutes >= self.plan.experiment.training.temporary_checkpoint_minutes
        return due or (self.directory / REQUEST).is_file()

    def _advance(self, state: State) -> State:
        step, before = state.step + 1, self._keep_before(state)
        clock, waited = Clock(self.program.sum_compile_seconds()), self.crew.measure_waiting()
        state, metrics = self.program.step(state, self.past.take_batch(step))
        values = to_numbers(metrics)
        if self.program.device.type == "cuda":
            torch.cuda.synchronize(self.program.device)
        taken = clock.measure(self.program.sum_compile_seconds())
        taken = self._compare_times(step, taken._replace(waited=self.crew.measure_waiting() - waited))
        rule, loss = self.plan.experiment.training.spike, values.get(divergence.LOSS)
        problem = find_divergence(values) or divergence.find_unusable(state.params)
        spike = (
            None if problem else divergence.describe_spike(rule, step, loss, self.journal.steps, self._find_undone())
        )
        evaluated = {} if problem or spike else self._evaluate(state, before)
        problem = problem or find_divergence(evaluated)
        # A step that is recorded as undone stays undone, even if computing it again gives other bits.
        if problem or spike or step in self._find_undone():
            state = self._undo(step, problem, spike)
            # If a step was not taken, only its losses are known.
            values = {name: value for name, value in values.items() if name.startswith("loss/")}
            evaluated = self._evaluate(state, {})
            if problem := find_divergence(evaluated):
                raise self._diverge(step, f"{problem}, though the step was undone")
        self._conclude(state, {**values, **evaluated}, taken)
        return state

    def _compare_times(self, step: int, taken: Taken) -> Taken:
        """Return the time of the step for all processes together, and record which of them have become slow."""
        if self.crew.size == 1:
            return taken
        mine = socket.gethostname(), taken.cpu, taken.seconds - taken.waited
        hosts, cpu, own = zip(*self.crew.collect(mine), strict=True)
        here = sum(each for host, each in zip(hosts, cpu, strict=True) if host == hosts[self.crew.rank])
        for slow in self.stragglers.hear(dict(enumerate(own))):
            self.recorder.record_event(step, SLOW, slow.message)
        others = None if taken.others is None else taken.others + taken.cpu - here
        return taken._replace(cpu=sum(cpu), others=others, devices=self.crew.size)

    def _keep_before(self, state: State) -> Params:
        """Copy the weights if a metric may need those before the step, which overwrites them."""
        asked = any(metric.needs_before for metric in self.program.metrics) and self._should_evaluate(state.step + 1)
        return trees.clone(state.params) if asked else {}

    def _conclude(self, state: State, values: Mapping[str, float], taken: Taken) -> None:
        if self.plan.experiment.training.on_nonfinite != "raise":
            values = {**values, UNDONE: len(self._find_undone(state.step))}
        record = self.recorder.record_step(state.step, values, taken, self.program.sum_compile_seconds())
        if self._should_keep(state.step) or results.is_finished(self.plan, record):
            self._save(state)

    def _evaluate(self, state: State, before: Params) -> dict[str, float]:
        """Measure the metrics that are due on these weights. Raises DiskProblem."""
        if not self._should_evaluate(state.step):
            return {}
        at = self.program.make_moment(state, self.evaluation, before)._replace(dataset=self.dataset, write=self._write)
        values = to_numbers(self.program.evaluate(at, lambda metric: metric.decides))
        if state.average is not None and state.average.steps and LOSS in values:
            averaged = at._replace(params=state.average.params)
            values[AVERAGE_LOSS] = to_numbers(self.program.evaluate(averaged, lambda metric: metric.decides))[LOSS]
        if find_divergence(values):
            return values
        number = state.step // self.plan.evaluation.every
        last = results.is_finished(self.plan, Step(state.step, 0.0, values))
        due = [metric for metric in self.program.metrics if not metric.decides and metric.is_due(number, last)]
        if any(metric.measure is not measure_nothing for metric in due):
            at = at._replace(state=self.program.whole(state).optimizer)
        others = self.program.evaluate(at, due.__contains__)
        return {**values, **to_numbers(others)}

    def _write(self, name: str, content: bytes) -> None:
        """Write a file of a metric before its step is in the journal. Raises DiskProblem."""
        self.crew.lead(lambda: disk.write(self.directory / results.SAMPLES / name, content))

    def _should_evaluate(self, step: int) -> bool:
        return step % self.plan.evaluation.every == 0 or step >= self.plan.steps

    def _should_keep(self, step: int) -> bool:
        """Return whether to keep the checkpoint of this step: it is on the schedule, or undoing a step needs it."""
        training = self.plan.experiment.training
        scheduled = step % training.checkpoint_every == 0 and (step > 0 or training.on_nonfinite == "rollback")
        return scheduled or step + 1 in self._find_undone()

    def _find_undone(self, up_to: float = math.inf) -> set[int]:
        return {step for step in self.journal.find_steps_with(SKIPPED, ROLLED_BACK) if step <= up_to}

    def _save(self, state: State) -> None:
        if self.saved == state.step:
            return
        state = self.program.join_blocks(state)
        agreement.require_same(self.crew, state)
        self.crew.lead(self._prepare_saving)
        checkpoint.save(self.checkpoints, state, self.crew)
        self.crew.lead(lambda: self._tidy(state))
        self.saved, self.saved_at = state.step, time.monotonic()

    def _prepare_saving(self) -> None:
        self.require_data()
        self.journal.sync()

    def _tidy(self, state: State) -> None:
        checkpoint.prune(self.checkpoints, state.step, self._should_keep)
        results.write_metrics(self.directory, self.journal.steps)
        (self.directory / REQUEST).unlink(missing_ok=True)

    def _leave(self, state: State) -> GnflowError:
        self._save(state)
        self._summarise(state.step, results.PREEMPTED)
        return self.stop.make_error(f"stopped after step {state.step} of {self.plan.steps}; the same command resumes")

    def _undo(self, step: int, problem: str | None, spike: str | None) -> State:
        """Return the state to continue with if `step` is undone. Raises Diverged if the policy does not allow it."""
        training = self.plan.experiment.training
        before = self.past.compute_state(step - 1)
        self._save(before)
        if step not in self._find_undone():
            first, count = self.plan.find_first_microbatch(step), self.plan.microbatches
            find = divergence.find_cause if problem else divergence.find_highest
            cause = find(self.program, before.params, self.batches, first, count)
            what = problem or spike or ""
            self.crew.lead(
                lambda: offending.write(self.directory, step, what, cause, self.batches, first, count, self.read)
            )
            told, undone = f"{what}; {cause.words}", len(self._find_undone(step))
            if training.on_nonfinite == "raise":
                raise self._diverge(step, told)
            if undone >= training.max_undone:
                raise self._diverge(step, f"{told}; training.max_undone is {training.max_undone}, so it is not undone")
            back = self.past.find_scheduled(step - 1)
            name, then = {
                "skip": (SKIPPED, "the step is not taken"),
                "rollback": (ROLLED_BACK, f"the weights are those after step {back} again"),
            }[training.on_nonfinite]
            self.recorder.record_event(step, name, f"{told}; {then} ({undone + 1} of at most {training.max_undone})")
        return self.past.undo(step, before)

    def _diverge(self, step: int, problem: str) -> Diverged:
        message = f"step {step}: {problem}"
        self.recorder.record_event(step, "diverged", message)
        self.journal.sync()
        self._summarise(max(step - 1, 0), results.DIVERGED)
        cure = "a smaller learning rate is the usual cure, under another name or with --fresh"
        return Diverged(f"{message}.\nThe weights before it are saved; {cure}.")

    def _summarise(self, step: int, status: str) -> None:
        self.crew.lead(lambda: results.write_summary(self.directory, self.plan, self.journal.steps, step, status))
