"""SOAP of other packages, as far as they are installed."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import nn

RATE = 1e-3


def _build_pytorch_optimizer(params: list[nn.Parameter], period: int) -> torch.optim.Optimizer:
    return import_module("pytorch_optimizer").SOAP(params, lr=RATE, precondition_frequency=period)


def _build_heavyball(params: list[nn.Parameter], period: int) -> torch.optim.Optimizer:
    package = import_module("heavyball")
    # Its own choice tunes every product on the machine, which takes minutes on a CPU.
    package.utils.compile_mode = "default"
    return package.SOAP(params, lr=RATE, precondition_frequency=period)


def _build_emerging_optimizers(params: list[nn.Parameter], period: int) -> torch.optim.Optimizer:
    # It has no period: it computes bases at every step.
    return import_module("emerging_optimizers.legacy_soap").SOAP(params, lr=RATE)


Build = Callable[[list[nn.Parameter], int], torch.optim.Optimizer]

SOAPS: dict[str, Build] = {
    "pytorch_optimizer": _build_pytorch_optimizer,
    "heavyball": _build_heavyball,
    "emerging_optimizers": _build_emerging_optimizers,
}
"""Package -> a function of (parameters, updates between two computations of a basis) that makes its SOAP."""


def list_missing() -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in SOAPS if find_spec(name) is None]
