"""Singular vectors of task vectors, by eigendecomposition of the smaller Gram matrix."""

import torch

from kinship.errors import NonFiniteWeights

# Directions weaker than this share of the strongest are rounding of fp32 weights, not update.
RANK_TOLERANCE = 1e-5


def svd(matrix: torch.Tensor, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular triplets U (m, r), s (r), Vᵀ (r, n) of a float64 ``matrix`` (m, n), largest first.

    r is its numerical rank, or ``count`` if that is less. Found from the eigenvectors of the smaller of MMᵀ and MᵀM,
    which loses values below 1e-7 of the largest; `RANK_TOLERANCE` is above that. Raises `NonFiniteWeights`.
    """
    if matrix.shape[0] > matrix.shape[1]:
        u, s, vh = svd(matrix.T, count)
        return vh.T, s, u.T
    if not matrix.isfinite().all():
        raise NonFiniteWeights("A task vector holds NaN or infinity.", hint="Look for a damaged checkpoint.")
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    s = squares.flip(0).clamp(min=0).sqrt()
    s = s[s > RANK_TOLERANCE * s[:1]][:count]
    u = vectors[:, vectors.shape[1] - len(s) :].flip(1)
    return u, s, (u.T @ matrix) / s[:, None]


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """The orthonormal (on its range) float64 matrix nearest to ``matrix``: U Vᵀ, free of the signs of both."""
    u, _, vh = svd(matrix)
    return u @ vh
