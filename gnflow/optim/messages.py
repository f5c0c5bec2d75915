"""Metrics of solvers that other processes ran: how they are sent, and their means over several solvers."""

from collections.abc import Mapping, Sequence

import torch

from gnflow.objective import Metrics, Params


def say_metrics(metrics: Metrics) -> dict[str, tuple[float, str]]:
    """Write metrics as JSON can hold them. This waits for the device."""
    return {name: (value.item(), str(value.dtype).removeprefix("torch.")) for name, value in metrics.items()}


def hear_metrics(said: Mapping[str, tuple[float, str]], like: Params) -> Metrics:
    """Undo `say_metrics`, on the device of `like`."""
    device = next(iter(like.values())).device
    return {
        name: torch.tensor(value, dtype=getattr(torch, kind), device=device) for name, (value, kind) in said.items()
    }


def average_metrics(solvers: Sequence[Metrics], *kinds: str) -> Metrics:
    """Average metrics over those solvers that have them. With `kinds`, only names that begin so."""
    names = sorted({name for metrics in solvers for name in metrics if name.startswith(kinds or "")})
    return {name: torch.stack([metrics[name] for metrics in solvers if name in metrics]).mean() for name in names}
