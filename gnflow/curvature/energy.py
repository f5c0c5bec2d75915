"""The share of a symmetric operator that lies in its diagonal blocks.

    share = sum_b |A_bb|^2 / |A|^2                               Frobenius norms
          ~ sum_v sum_b |(A v_b)_b|^2 / sum_v sum_b |A v_b|^2    v_b a probe in the parameters of b, 0 elsewhere

With probes of independent random signs both sums, divided by the number of probes, are unbiased. They use the same
products, so the quotient lies in [0, 1]; it is exact if A is block-diagonal or has a single block.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch

from gnflow import trees
from gnflow.curvature.lanczos import Operator
from gnflow.objective import Params, Scalar


def estimate_energies(
    operator: Operator, blocks: Mapping[str, Sequence[str]], probes: Iterable[Params]
) -> tuple[Scalar, Scalar]:
    """Return the energies (in the diagonal blocks, in all of A), averaged over the probes.

    Each probe takes one product for each block.
    """
    within, whole = [], []
    for probe in probes:
        for names in blocks.values():
            image = operator({**trees.zeros(probe), **trees.pick(probe, names)})
            part = trees.pick(image, names)
            within.append(trees.dot(part, part))
            whole.append(trees.dot(image, image))
    count = len(within) // len(blocks)
    return torch.stack(within).sum() / count, torch.stack(whole).sum() / count
