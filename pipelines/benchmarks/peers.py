"""SOAP of other packages, as far as they are installed."""

import typing
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import nn

RATE = 1e-3
PERIOD = 10


class Peer(NamedTuple):
    """A SOAP that ours is compared with."""

    build: Callable[[list[nn.Parameter], int], torch.optim.Optimizer]
    """(parameters, steps between two computations of the bases) -> the optimizer."""
    period: int = PERIOD
    """Steps between two computations of the bases, for both."""


def _build_pytorch_optimizer(params: list[nn.Parameter], period: int) -> torch.optim.Optimizer:
    return import_module("pytorch_optimizer").SOAP(params, lr=RATE, precondition_frequency=period)


def _build_heavyball(params: list[nn.Parameter], period: int) -> torch.optim.Optimizer:
    package = import_module("heavyball")
    # Its own choice tunes every product for minutes on a CPU, and fails if torch may not compile.
    package.utils.compile_mode = None if torch._dynamo.config.disable else "default"
    return package.SOAP(params, lr=RATE, precondition_frequency=period)


def _build_emerging_optimizers(params: list[nn.Parameter], period: int) -> torch.optim.Optimizer:
    if not hasattr(typing, "override"):
        # The package asks for Python 3.12. This decorator, which does nothing, is all that it uses of 3.12.
        typing.override = lambda method: method  # type: ignore[attr-defined]  # Python 3.11 has none
    # Its own choice is TF32, which the others do not use.
    exact = {"fp32_matmul_prec": "highest", "qr_fp32_matmul_prec": "highest"}
    return import_module("emerging_optimizers.soap").SOAP(params, lr=RATE, **exact)


PEERS = {
    "pytorch_optimizer": Peer(_build_pytorch_optimizer),
    "heavyball": Peer(_build_heavyball),
    "emerging_optimizers": Peer(_build_emerging_optimizers, period=1),  # it computes bases at every step
}
"""By package."""


def list_missing() -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in PEERS if find_spec(name) is None]
