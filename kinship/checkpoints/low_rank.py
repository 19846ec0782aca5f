"""Low-rank changes of a matrix, and those whose initialisation took something from the matrix first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of the change that an initialisation took out of the base, so much is left by computing it again in fp32.
ROUNDING = 1e-6


@dataclass(frozen=True)
class LowRank:
    """A change of one matrix: ``scale * left @ right`` with left (out, r) and right (r, in), fp32."""

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix changed."""
        return self.left.shape[0], self.right.shape[1]

    def dense(self) -> NDArray[np.float32]:
        """The change as a matrix (out, in), fp32."""
        return np.float32(self.scale) * (self.left @ self.right)

    def norm(self) -> float:
        """Its Frobenius norm, from the factors in float64; cost (out + in) r^2."""
        left, right = self.left.astype(np.float64), self.right.astype(np.float64)
        return abs(self.scale) * float(np.sqrt(max(0.0, ((left.T @ left) * (right @ right.T)).sum())))


@dataclass(frozen=True)
class Start:
    """An initialisation that took its own product out of the base: ``pissa`` (leading singular directions, Meng et al.,
    arXiv 2404.02948) or ``olora`` (QR, arXiv 2406.01775).

    turned: the base stores the transpose of the matrix that was decomposed.
    """

    method: str
    turned: bool = False


def since_start(change: LowRank, start: Start, weight: NDArray[np.float32]) -> LowRank:
    """What training did to ``weight`` (out, in): ``change`` less what ``start`` put there, as peft does it on loading.

    ``B A - B0 A0 = (B - B0) A + B0 (A - A0)``, which loses no digits where little was trained and is nothing where
    nothing was. Torch decomposes, as in training: cost that of an SVD (``pissa``) or QR of the whole matrix.
    """
    matrix = weight.T if start.turned else weight
    left, right = (change.right.T, change.left.T) if start.turned else (change.left, change.right)
    first_left, first_right = _factors(start.method, matrix, left.shape[1], change.scale)
    # A singular vector may come with the other sign on another machine; the product is the same.
    signs = np.where((right * first_right).sum(axis=1) < 0, np.float32(-1), np.float32(1))
    first_left, first_right = first_left * signs, first_right * signs[:, None]
    trained = LowRank(
        np.concatenate([left - first_left, first_left], axis=1),
        np.concatenate([right, right - first_right], axis=0),
        change.scale,
    )
    if trained.norm() <= ROUNDING * LowRank(first_left, first_right, change.scale).norm():
        trained = LowRank(np.zeros_like(left), np.zeros_like(right), change.scale)
    if start.turned:
        trained = LowRank(np.ascontiguousarray(trained.right.T), np.ascontiguousarray(trained.left.T), change.scale)
    return trained


def _factors(
    method: str, matrix: NDArray[np.float32], rank: int, scale: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first factors (out, r) and (r, in), step by step as peft computes them, so that they are equal to the bit."""
    import torch

    weight = torch.from_numpy(matrix)
    if method == "olora":
        q, r = torch.linalg.qr(weight)
        return q[:, :rank].contiguous().numpy(), r[:rank].contiguous().numpy()
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    roots = torch.diag(torch.sqrt(s[:rank] / scale))
    return (u[:, :rank] @ roots).numpy(), (roots @ v[:rank]).numpy()
