"""RegMean of one linear layer's weight."""

from collections.abc import Sequence

import torch

from merging.data_driven.fisher import average, per_model


def regmean(vectors: torch.Tensor, grams: torch.Tensor, weights: Sequence[float], alpha: float = 0.9) -> torch.Tensor:
    """The weight (out, in) whose outputs are nearest to those of each model (p, out, in) on its own inputs.

    grams: (p, in, in) ``G_i = X_i^T X_i``. Minimises ``sum_i w_i |X_i W^T - X_i W_i^T|^2``, with the products of
    different inputs made smaller by ``alpha`` (0 to 1): ``H_i = alpha G_i + (1 - alpha) diag(G_i)`` and
    ``W^T = (sum_i w_i H_i)^-1 sum_i w_i H_i W_i^T`` (Jin et al., arXiv 2212.09849).

    It is solved for the difference from the average, in float64, each input in its own scale: inputs that no data
    reached then stay at the average, and with alpha below 1 the condition is at most in / (1 - alpha). With alpha 1,
    where G may be singular, the solution is the one nearest to the average in that scale.
    Cost: O(in^3 + p out in^2) and 8 (p out in + 3 in^2) bytes; alpha 1 some ten times the time.

    >>> inputs = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> regmean(torch.tensor([[[1.0, 1.0]], [[3.0, 6.0]]]), inputs.mT @ inputs, [1.0, 1.0])
    tensor([[2., 2.]])
    """
    wide = vectors.double()
    middle = average(wide, weights)
    shrunk = alpha * grams.double()
    shrunk.diagonal(dim1=1, dim2=2).copy_(grams.diagonal(dim1=1, dim2=2))
    shrunk *= per_model(weights, shrunk)
    left = shrunk.sum(dim=0)
    right = torch.einsum("pij,poj->io", shrunk, wide - middle)
    reached = left.diagonal() > 0
    scale = torch.where(reached, left.diagonal(), 1.0).rsqrt()
    left = scale[:, None] * left * scale
    if alpha < 1.0:
        left.diagonal()[~reached] = 1.0
        change = torch.cholesky_solve(scale[:, None] * right, torch.linalg.cholesky(left))
    else:
        smallest = len(left) * torch.finfo(grams.dtype).eps
        change = torch.linalg.pinv(left, rtol=smallest, hermitian=True) @ (scale[:, None] * right)
    return (middle + (scale[:, None] * change).T).to(vectors.dtype)
