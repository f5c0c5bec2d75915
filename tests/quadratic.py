"""A small real problem for the trainer: a weight per token, drawn to a value per token by momentum descent."""

from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gnflow.compiler.average import begin_average, follow
from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.program import State
from gnflow.data.batches import Batches, take_held_out
from gnflow.metrics.protocol import Metric, Moment
from gnflow.objective import Metrics, Objective, Params, Tokens
from gnflow.spec.experiment import Experiment
from gnflow.spec.training import WeightAverage
from gnflow.train import checkpoint
from gnflow.train.journal import Journal, Step, read
from gnflow.train.recorder import Observer, Recorder
from gnflow.train.session import Session
from gnflow.train.signals import Stop

VOCABULARY, MICROBATCHES = 257, 3
POISON = 256  # a token whose loss is infinite


def experiment(**training: object) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "quadratic",
            "model": {"kind": "decoder", "layers": 1, "width": 16, "heads": 2},
            "data": {"source": {"kind": "files", "paths": ["text.txt"]}, "tokenizer": "bytes", "context": 8},
            "optimizer": {"kind": "adamw", "microbatches": MICROBATCHES},
            "training": {"rows": 4, "start": {"kind": "scratch"}, "device": "cpu", "steps": 12, **training},
            "metrics": [{"kind": "loss", "microbatches": 2}, "cost", "update_norms"],
            "compile": {"mode": "off"},
            "tracking": "none",
        }
    )  # fmt: skip


@cache
def quadratic_plan(at_most: float | None = None, **training: object) -> Plan:
    return plan(experiment(**training, **({} if at_most is None else {"target": {"at_most": at_most}})))


class Momentum(NamedTuple):
    count: Tensor
    momentum: Params


class Quadratic:
    """As a Program: `step` consumes its arguments, all state is in the State."""

    def __init__(self, learning_rate: float = 5.0, average: WeightAverage | None = None, steps: int = 12) -> None:
        self.average, self.steps = average, steps
        self.device = torch.device("cpu")
        self.learning_rate = learning_rate
        self.objective = Objective(self._value, torch.func.grad_and_value(self._value), None)
        self.metrics = (Metric(microbatches=2, decides=True),)
        self.steps_taken = 0

    def _value(self, params: Params, tokens: Tokens) -> Tensor:
        errors = (params["weight"][tokens] - tokens / VOCABULARY).square()
        return (errors / (tokens != POISON)).mean()

    def first(self) -> Params:
        return {"weight": torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1))}

    def init(self, params: Params) -> State:
        momentum = {name: torch.zeros_like(value) for name, value in params.items()}
        average = begin_average(self.average, params)
        return State(0, params, Momentum(torch.zeros((), dtype=torch.int64), momentum), average)

    def make_template(self) -> State:
        return self.init({"weight": torch.empty(VOCABULARY, device="meta")})._replace(
            optimizer=Momentum(
                torch.empty((), dtype=torch.int64, device="meta"), {"weight": torch.empty(VOCABULARY, device="meta")}
            )
        )

    def step(self, state: State, batch: Tensor) -> tuple[State, Metrics]:
        self.steps_taken += 1
        results = [self.objective.gradient(state.params, tokens) for tokens in batch]
        gradient = torch.stack([slopes["weight"] for slopes, _ in results]).mean(0)
        weight, momentum = state.params["weight"], state.optimizer.momentum["weight"]
        momentum.mul_(0.9).add_(gradient)
        weight.sub_(self.learning_rate * momentum)
        state.optimizer.count.add_(1)
        metrics = {"loss/train": torch.stack([loss for _, loss in results]).mean(), "norm/gradient": gradient.norm()}
        average = follow(state.average, self.average, state.params, state.step + 1, self.steps)
        return state._replace(step=state.step + 1, average=average), metrics

    def make_moment(self, state: State, batch: Tensor, before: Params) -> Moment:
        return Moment(state.step, state.params, before, self, state.optimizer, self.objective, batch)

    def join_blocks(self, state: State) -> State:
        return state

    def whole(self, state: State) -> State:
        return state

    def evaluate(self, at: Moment, due: Callable[[Metric], bool]) -> Metrics:
        if not due(*self.metrics):
            return {}
        return {"loss/held_out": torch.stack([self.objective.value(at.params, tokens) for tokens in at.batch]).mean()}

    def sum_compile_seconds(self) -> float:
        return 0.0


def tokens(count: int = 20_000) -> np.ndarray:
    return np.random.default_rng(0).integers(0, POISON, count).astype(np.uint16)


def poisoned(*steps: int, row: int = 2) -> np.ndarray:
    """A text with one poisoned token in this row of the second micro-batch of each of these steps."""
    train, order = tokens(), Batches(tokens(), 4, 8, seed=0)
    for step in steps:
        train[int(order.find_rows((step - 1) * MICROBATCHES + 1, 1)[0][row]) * 8 + 4] = POISON
    return train


def trained(
    directory: Path,
    plan: Plan,
    *observers: Observer,
    program: Quadratic | None = None,
    train: np.ndarray | None = None,
) -> State:
    """Begins, or goes on from the newest checkpoint, to the last step."""
    program = program or Quadratic(average=plan.experiment.training.average)
    with Stop(lambda line: None) as stop, closing(Journal(directory / "journal.jsonl")) as journal:
        session = Session(
            plan,
            program,
            Batches(tokens() if train is None else train, 4, 8, seed=0),
            take_held_out(tokens(2_000), 4, 8, 2),
            directory,
            directory / "checkpoints",
            Recorder(journal, plan, observers),
            stop,
        )
        stop.patient = True
        newest = checkpoint.find_newest(directory / "checkpoints", journal.reaches).path
        return session.train(session.resume(newest) if newest else session.begin(program.first()))


def computed(directory: Path) -> list[tuple[object, ...]]:
    """The journal, line by line, without what a clock says."""
    return [
        (record.step, {name: value for name, value in record.values.items() if not name.startswith("time/")})
        if isinstance(record, Step)
        else (record.step, record.name, record.message)
        for record in read(directory / "journal.jsonl").records
    ]
