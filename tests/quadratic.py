"""A small real problem for the trainer: a weight per token, drawn to a value per token by momentum descent."""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.program import State
from gnflow.objective import Metrics, Objective, Params, Tokens
from gnflow.spec.experiment import Experiment

VOCABULARY = 257
POISON = 256  # a token whose loss is infinite


def experiment(**training: object) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "quadratic",
            "model": {"kind": "decoder", "layers": 1, "width": 16, "heads": 2},
            "data": {"source": {"kind": "files", "paths": ["text.txt"]}, "tokenizer": "bytes", "context": 8},
            "optimizer": {"kind": "adamw", "microbatches": 3},
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

    def __init__(self, learning_rate: float = 5.0) -> None:
        self.device = torch.device("cpu")
        self.learning_rate = learning_rate
        self.objective = Objective(self._value, torch.func.grad_and_value(self._value), None)
        self.steps_taken = 0

    def _value(self, params: Params, tokens: Tokens) -> Tensor:
        errors = (params["weight"][tokens] - tokens / VOCABULARY).square()
        return (errors / (tokens != POISON)).mean()

    def first(self) -> Params:
        return {"weight": torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1))}

    def init(self, params: Params) -> State:
        momentum = {name: torch.zeros_like(value) for name, value in params.items()}
        return State(0, params, Momentum(torch.zeros((), dtype=torch.int64), momentum))

    def template(self) -> State:
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
        return state._replace(step=state.step + 1), metrics

    def evaluate(self, params: Params, batch: Tensor) -> Metrics:
        return {"loss/held_out": torch.stack([self.objective.value(params, tokens) for tokens in batch]).mean()}

    def compile_seconds(self) -> float:
        return 0.0


def tokens(count: int = 20_000) -> np.ndarray:
    return np.random.default_rng(0).integers(0, POISON, count).astype(np.uint16)
