"""Check of the statistics of linear layers against products with the Gauss-Newton matrix, in float64."""

import torch

from gnflow.objective import Params, Watch
from gnflow.optim.kronecker import expand
from gnflow.spec.experiment import Experiment
from gnflow.verify.derivatives import CLOSE, draw_point
from gnflow.verify.subject import Make, build_parts, draw_noise, require


def check_signals(experiment: Experiment, make: Make = build_parts) -> None:
    """Check for one token that B V A is the product of each block with V; A and B are the factors of its layer."""
    at = draw_point(experiment, make)
    objective, network, tokens = at.parts.objective, at.parts.network, at.tokens[:1, :2]
    names = [name for name in network.moving if name in network.linears]
    noise = torch.zeros(1, 1, device=tokens.device)
    found = objective.signals(at.anchor, noise, Watch(dict.fromkeys(names, expand), expanded=True), tokens)
    for name in names:
        direction: Params = draw_noise({name: at.anchor[name]}, 15)
        expected = objective.product(direction, at.anchor, tokens)[name]
        product = found[name]["outputs"] @ direction[name] @ found[name]["inputs"]
        error = (product - expected).norm().item()
        allowed = CLOSE * max(expected.norm().item(), 1e-6)
        require(
            error <= allowed,
            f"the factors of `{name}` give a product that is off by {error:.2g}; allowed {allowed:.2g}",
        )
