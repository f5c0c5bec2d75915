"""Kronecker factors of the Gauss-Newton matrix of a linear layer, from its inputs x and the gradients g at its outputs.

All functions take a micro-batch (rows, time, in) and (rows, time, out). `kfac.py` has the formulas.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gnflow.objective import Params, Statistic
from gnflow.optim.protocol import Collect


def expand(inputs: Tensor, outputs: Tensor) -> Params:
    """Return the factors for which every token counts by itself."""
    x, g = inputs.flatten(0, -2), outputs.flatten(0, -2)
    return {"inputs": x.mT @ x / len(x), "outputs": g.mT @ g}


def measure_inputs(inputs: Tensor, outputs: Tensor) -> Params:
    """Return the factor of the inputs alone, for which every token counts by itself."""
    x = inputs.flatten(0, -2)
    return {"inputs": x.mT @ x / len(x)}


def reduce(inputs: Tensor, outputs: Tensor) -> Params:
    """Return the factors for which every row counts as a whole."""
    return expand(inputs.mean(1), outputs.sum(1))


def follow_average(before: Params, seen: Params, beta: float, observations: Tensor) -> Params:
    """Return the exponential average after one more observation. It is a weighted mean of what has been seen."""
    fade = (1 - beta) / (1 - beta ** (observations.double() + 1))
    return {name: x + fade * (seen[name] - x) for name, x in before.items()}


def multiply_rows(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return D, the gradient of each row in the weight: (rows, out, in)."""
    return outputs.mT @ inputs


def square_in(left: Tensor, right: Tensor) -> Statistic:
    """Make the statistic of the squares of D in these bases, the diagonal of the Gauss-Newton matrix there."""

    def square(inputs: Tensor, outputs: Tensor) -> Params:
        return {"squares": multiply_rows(inputs @ right, outputs @ left).square().sum(0)}

    return square


def iterate(
    collect: Collect, names: Sequence[str], inputs: Params, outputs: Params, expanded: bool
) -> dict[str, Params]:
    """Do one power iteration towards the factors whose product is closest to the matrix, on all stacks."""
    u, v = _normalise(inputs), _normalise(outputs)

    def watch(name: str, k: int) -> Statistic:
        def multiply(x: Tensor, g: Tensor) -> Params:
            rows = multiply_rows(x, g)
            return {
                "inputs": (rows.mT @ v[name][k] @ rows).sum(0),
                "outputs": (rows @ u[name][k] @ rows.mT).sum(0),
            }

        return multiply

    seen = collect(names, watch, expanded)
    size = {name: (v[name] * seen["outputs"][name]).sum((-2, -1), keepdim=True).clamp(min=0).sqrt() for name in names}
    return {
        key: {name: torch.where(size[name] > 0, x / _keep_positive(size[name]), x) for name, x in seen[key].items()}
        for key in ("inputs", "outputs")
    }


def multiply(outputs: Tensor, left: Tensor, inputs: Tensor, right: Tensor, extra: float) -> Tensor:
    """Return the product of the eigenvalues of both factors, (k, m, n), each raised by the part `extra` of its mean."""
    b, a = find_eigenvalues(outputs, left), find_eigenvalues(inputs, right)
    b, a = (each + extra * each.mean(-1, keepdim=True) for each in (b, a))
    return b.unsqueeze(-1) * a.unsqueeze(-2)


def find_eigenvalues(factor: Tensor, basis: Tensor) -> Tensor:
    """Return the eigenvalues for the columns of the basis, without the negative ones that rounding leaves: (k, m)."""
    return (basis * (factor @ basis)).sum(-2).clamp(min=0)


def match_rms(update: Tensor) -> Tensor:
    """Scale each matrix to a root mean square of 0.2."""
    size = update.square().mean((-2, -1), keepdim=True).sqrt()
    return 0.2 * update / _keep_positive(size)


def _normalise(factors: Params) -> Params:
    """Scale each factor to norm 1. One of zeros, which has seen nothing, becomes a multiple of the identity."""

    def scale(x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
        eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) / max(x.shape[-1], 1) ** 0.5
        return torch.where(size > 0, x / _keep_positive(size), eye)

    return {name: scale(x) for name, x in factors.items()}


def _keep_positive(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)
