"""Eigenbases of positive semi-definite matrices, updated by one power iteration and a QR decomposition at a time.

    e = diag(Q' A Q),  columns of Q by falling e,  Q <- qr(A Q)

On a GPU the decomposition is CholeskyQR2, which takes products of the whole batch. On a CPU it is LAPACK's Householder
QR, which takes half the time there (see pipelines/benchmarks). A matrix that is too ill-conditioned for Cholesky is
decomposed by Householder alone.

Source:   Vyas et al. 2024, arXiv:2409.11321, algorithm 4; CholeskyQR2: Yamamoto et al. 2015, ETNA 44
Code:     github.com/nikhilvyas/SOAP soap.py `get_orthogonal_matrix_QR` @ a1e5535
Differs:  the signs of the columns differ; nothing depends on them
"""

import torch
from torch import Tensor

# Householder QR in float32 stays below 1e-6 times the size.
LARGEST_ERROR = 1e-5
SMALLEST_NORM = 1e-30


def find_basis(factors: Tensor) -> Tensor:
    """Compute the eigenvectors of (..., m, m), by falling eigenvalue, in at least float32."""
    wide = torch.float64 if factors.dtype == torch.float64 else torch.float32
    shift = SMALLEST_NORM * torch.eye(factors.shape[-1], dtype=wide, device=factors.device)
    vectors: Tensor = torch.linalg.eigh(factors.to(wide) + shift).eigenvectors
    # LAPACK returns column-major matrices, for whose strides the update would be compiled again.
    return vectors.flip(-1).to(factors.dtype).contiguous()


def advance_basis(factors: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the basis after one more power iteration, and the order in which it took the old columns.

    Both arguments are (..., m, m).
    """
    product = factors @ basis
    order = (basis * product).sum(-2).argsort(dim=-1, descending=True)
    product = product.gather(-1, order.unsqueeze(-2).expand_as(product))
    return orthonormalise(product), order


def orthonormalise(columns: Tensor) -> Tensor:
    """Orthonormalise the columns of (..., m, m), in at least float32."""
    wide = torch.float64 if columns.dtype == torch.float64 else torch.float32
    columns, dtype = columns.to(wide), columns.dtype
    decompose = decompose_by_cholesky if columns.is_cuda else decompose_by_householder
    return decompose(columns).to(dtype).contiguous()


def decompose_by_householder(columns: Tensor) -> Tensor:
    """Decompose by reflections, one matrix after another. This is stable for any matrix."""
    q: Tensor = torch.linalg.qr(columns).Q
    return q


def decompose_by_cholesky(columns: Tensor) -> Tensor:
    """Decompose the whole batch by CholeskyQR2. Matrices whose result is not orthonormal go to Householder."""
    batch = columns.reshape(-1, *columns.shape[-2:])
    q = batch / batch.norm(dim=-2, keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(2):
        lower = torch.linalg.cholesky_ex(q.mT @ q).L
        q = torch.linalg.solve_triangular(lower.mT, q, upper=True, left=False)
    eye = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    error = (q.mT @ q - eye).abs().amax((-2, -1))
    failed = ~(error < LARGEST_ERROR)  # NaN fails too
    if failed.any():
        q[failed] = decompose_by_householder(batch[failed])
    basis: Tensor = q.view(columns.shape)
    return basis
