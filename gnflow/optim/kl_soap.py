"""SOAP with factors that are estimated together, so that their Kronecker product is close to the covariance of G.

    L <- s L + (1 - s)/n  G QR max(lR, eps)^-1 QR' G',    lR = diag(QR' R QR)
    R <- s R + (1 - s)/m  G' QL max(lL, eps)^-1 QL' G,    lL = diag(QL' L QL),    W is (m, n)

Both use the old values. They begin as the identity times the root mean square of the first gradient. All else is as in
SOAP (`soap.py`).

Source:   Lin et al. 2025, arXiv:2509.03378
Code:     github.com/NVIDIA-NeMo/Emerging-Optimizers legacy_soap/soap.py @ fd77292
Differs:  the first factors have the scale of the gradient in place of 0.1, so gradients of any scale give the same
          bases; the bases are renewed as SOAP's are; a side too long for a basis whitens nothing
Use:      in place of SOAP. Their directions came about as close to a Gauss-Newton step, and both trained equally well
          (docs/results/oracle_gap.md)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gnflow.optim.arguments import add_help_of
from gnflow.spec.rules import Cautious, SoapFields
from gnflow.transform import Schedule, Transform

if TYPE_CHECKING:
    from torch import Tensor

    from gnflow.optim.soap import Average, SoapState


class KlSoapRule(SoapFields):
    """SOAP with the factors of KL-Shampoo (arXiv:2509.03378); for matrices only."""

    factory = "gnflow.optim.kl_soap:kl_soap"
    kind: Literal["kl_soap"] = "kl_soap"


@add_help_of(KlSoapRule)
def kl_soap(
    learning_rate: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float | Cautious = 0.01,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10_000,
    shampoo_beta: float | None = None,
    normalize_gradients: bool = False,
    fresh_factors: bool = False,
    schedule: Schedule | None = None,
    *,
    refresh: Literal["together", "staggered"] = "together",
    sides: Literal["both", "shorter"] = "both",
    block_size: int | None = None,
    dtype: Literal["auto", "bfloat16"] = "auto",
) -> Transform[SoapState]:
    """Make KL-SOAP for vectors, matrices and stacks of them. Raises ValueError in `init` for anything else."""
    import torch

    from gnflow.optim.soap import Average, Factors, Savings, adam_in_bases

    def begin(factor: Tensor, gradient: Tensor, state: SoapState) -> Tensor:
        squares = gradient.square().sum((-2, -1), keepdim=True) / max(gradient.shape[-2:].numel(), 1)
        eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        return torch.where(state.updates > 0, factor, squares.sqrt() * eye)

    def whiten(gradient: Tensor, factor: Tensor | None, basis: Tensor | None, state: SoapState) -> Tensor:
        """Return G Q max(l, eps)^-1 Q' / n, with the factor and the basis of the right side."""
        n = gradient.shape[-1]
        if factor is None or basis is None:
            return gradient / n
        spread = (basis * (begin(factor, gradient, state) @ basis)).sum(-2)
        inverse = spread.clamp(min=eps).reciprocal() / n
        return (gradient @ basis * inverse.unsqueeze(-2)) @ basis.mT

    def average_left(name: str, gradient: Tensor, state: SoapState) -> Average:
        factor = state.left[name]
        before = begin(factor, gradient, state) if name in state.right else factor
        return Average(before, whiten(gradient, state.right.get(name), state.right_basis.get(name), state))

    def average_right(name: str, gradient: Tensor, state: SoapState) -> Average:
        factor = state.right[name]
        before = begin(factor, gradient, state) if name in state.left else factor
        return Average(before, whiten(gradient.mT, state.left.get(name), state.left_basis.get(name), state))

    return adam_in_bases(
        "kl_soap", Factors(average_left, average_right),
        learning_rate, betas, eps, weight_decay, precondition_frequency, max_precondition_dim, shampoo_beta,
        normalize_gradients, fresh_factors, schedule, Savings(refresh, sides, block_size, dtype),
    )  # fmt: skip
