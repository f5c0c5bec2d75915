"""Initial weights. Each is a function of the seed of the run and of its own name."""

import hashlib

import torch
from torch import Tensor

from gnflow.models.model import Weight


def draw(weight: Weight, seed: int, name: str, device: torch.device | str) -> Tensor:
    """Draws a weight as it is before the first step; on the device `meta` it has a shape alone."""
    device = torch.device(device)
    if device.type == "meta":
        return torch.empty(weight.shape, device=device)
    if weight.std is None:
        return torch.full(weight.shape, weight.value, device=device)
    digest = hashlib.sha256(f"init/{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return torch.randn(weight.shape, generator=generator).mul_(weight.std).to(device)
