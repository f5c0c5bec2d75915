"""Initial weights. Each is a function of the seed of the run and of its own name."""

import hashlib

import torch
from torch import Tensor

from gnflow.models.model import Weight


def draw(weight: Weight, seed: int, name: str, device: torch.device | str) -> Tensor:
    """Draw a weight as it is before the first step; on the device `meta` it has a shape alone."""
    device = torch.device(device)
    if device.type == "meta":
        return torch.empty(weight.shape, device=device)
    if weight.std is None:
        return torch.full(weight.shape, weight.value, device=device)
    drawn = torch.randn(weight.shape, generator=make_generator(f"init/{seed}/{name}"))
    return drawn.mul_(weight.std).to(device)


def make_generator(key: str) -> torch.Generator:
    """Return a generator on the CPU whose numbers are a function of `key`."""
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
