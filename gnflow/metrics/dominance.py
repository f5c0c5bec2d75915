"""Measure how far the diagonal dominates the Gram matrix of the momentum, as RMNP assumes.

    A = V V',   r_i = |A_ii| / mean over j != i of |A_ij|         V is (m, n); a tall V is transposed first

The columns are the minimum, mean and maximum over the rows of each matrix, averaged over all matrices.

Source:   arXiv:2603.20527
Code:     github.com/Dominator-Index/RMNP GPT-2/RMNP/optimizers/muon.py @ a662ebc
Differs:  a matrix of one row has no ratio and is left out, where the reference counts it as 0
"""

import torch
from torch import Tensor

from gnflow.metrics.protocol import Metric, Subject
from gnflow.objective import Metrics, Params
from gnflow.spec import training


def build_dominance(spec: training.Dominance, subject: Subject) -> Metric:
    """Build the metric, which measures the ratios at every update, on the momentum that the update follows."""
    return Metric(probe=measure_dominance)


def measure_dominance(momentum: Params) -> Metrics:
    """Measure matrices (m, n) and stacks of them (k, m, n). Return nothing if every matrix has a single row."""
    ratios = [compute_row_ratios(v) for v in momentum.values() if min(v.shape[-2:]) > 1]
    if not ratios:
        return {}
    return {
        "dominance/r_min": torch.cat([r.amin(-1) for r in ratios]).mean(),
        "dominance/r_avg": torch.cat([r.mean(-1) for r in ratios]).mean(),
        "dominance/r_max": torch.cat([r.amax(-1) for r in ratios]).mean(),
    }


def compute_row_ratios(v: Tensor) -> Tensor:
    """Return r_i of each matrix in float32: (k, m)."""
    v = v.float().reshape(-1, *v.shape[-2:])
    gram = (v @ v.mT if v.shape[-2] <= v.shape[-1] else v.mT @ v).abs()
    rows = gram.shape[-1]
    # A mask selects the diagonal, since Inductor cannot take the diagonal view of a product.
    identity = torch.eye(rows, device=v.device)
    diagonal, others = (gram * identity).sum(-1), (gram * (1 - identity)).sum(-1)
    return diagonal / (others / (rows - 1 + 1e-10) + 1e-10)
