"""Singular vectors and low-rank factors of task vectors, by eigendecomposition of the smaller Gram matrix."""

import torch

from kinship.errors import NonFiniteWeights

# Directions weaker than this share of the strongest are rounding of fp32 weights, not update.
RANK_TOLERANCE = 1e-5
# Weaker ones are lost when the product is rounded to fp32.
FLOAT32_TOLERANCE = 1e-7


def svd(
    matrix: torch.Tensor, count: int | None = None, tolerance: float = RANK_TOLERANCE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular triplets U (m, r), s (r), Vᵀ (r, n) of a float64 ``matrix`` (m, n), largest first.

    r is its numerical rank, by ``tolerance`` as a share of the largest value, or ``count`` if that is less. Found from
    the eigenvectors of the smaller of MMᵀ and MᵀM, which loses values below 1e-7 of the largest; `RANK_TOLERANCE` is
    above that. Whatever is lost, U (m, m) for m <= n is orthogonal, and U s Vᵀ the projection on it. Raises
    `NonFiniteWeights`.
    """
    if matrix.shape[0] > matrix.shape[1]:
        u, s, vh = svd(matrix.T, count, tolerance)
        return vh.T, s, u.T
    if not matrix.isfinite().all():
        raise NonFiniteWeights("A task vector holds NaN or infinity.", hint="Look for a damaged checkpoint.")
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    s = squares.flip(0).clamp(min=0).sqrt()
    s = s[s > tolerance * s[:1]][:count]
    u = vectors[:, vectors.shape[1] - len(s) :].flip(1)
    return u, s, (u.T @ matrix) / s[:, None]


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """The orthonormal (on its range) float64 matrix nearest to ``matrix``: U Vᵀ, free of the signs of both."""
    u, _, vh = svd(matrix)
    return u @ vh


def low_rank_factors(
    matrix: torch.Tensor, rank: int | None = None, energy: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors L (m, r), R (r, n), float64, whose product is nearest to the float64 ``matrix`` (m, n) of all of rank r.

    r: ``rank``, or the least that keeps the share ``energy`` (0 to 1) of the sum of squares; never more than the
    matrix's own, and 0 for zeros. Both have the singular values' roots, so that they are of one size (Eckart and Young,
    Psychometrika 1936). Cost: an eigendecomposition of the smaller side. Raises `NonFiniteWeights`.

    >>> left, right = low_rank_factors(torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()), energy=0.9)
    >>> left.shape, [round(value, 6) for value in (left @ right).diagonal().tolist()]
    (torch.Size([3, 2]), [3.0, 2.0, 0.0])
    """
    u, s, vh = svd(matrix, rank, FLOAT32_TOLERANCE)
    if energy is not None:
        kept = s.square().cumsum(0)
        r = int((kept < energy * matrix.square().sum()).sum()) + 1
        u, s, vh = u[:, :r], s[:r], vh[:r]
    roots = s.sqrt()
    return u * roots, roots[:, None] * vh
