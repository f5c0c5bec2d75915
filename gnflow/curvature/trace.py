"""The trace of a symmetric operator, by Hutch++.

    Q = orthonormal basis of A (s_1 .. s_k)
    tr A ~ sum_i <q_i, A q_i> + mean_i <r_i, A r_i>,   r = g - Q Q' g             s, g of independent random signs

The estimate is unbiased, whatever Q is, and exact if the rank of A is at most k.

Source:   Meyer, Musco, Musco & Woodruff 2021, arXiv:2010.09649, algorithm 1
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.lanczos import Operator
from gnflow.objective import Params, Scalar


def estimate_trace(operator: Operator, sketch: Sequence[Params], probes: Sequence[Params]) -> Scalar:
    """Estimate the trace. Each s of `sketch` takes two products, each g of `probes` one. All and Q stay in memory."""
    like = sketch[0]

    def apply(vector: Tensor) -> Tensor:
        return trees.flatten(trees.pick(operator(trees.unflatten(vector, like)), like))

    basis, _ = torch.linalg.qr(torch.stack([apply(trees.flatten(s)) for s in sketch], dim=1))
    inside = torch.stack([q @ apply(q) for q in basis.T.contiguous()]).sum()
    outside = []
    for probe in probes:
        g = trees.flatten(probe)
        rest = g - basis @ (g @ basis)
        outside.append(rest @ apply(rest))
    return inside + torch.stack(outside).mean()
