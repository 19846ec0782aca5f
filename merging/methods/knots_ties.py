"""KnOTS: TIES on task vectors that have first been written in a basis common to all of them."""

from collections.abc import Sequence

import torch

from merging.kernels.spectral import svd
from merging.registry import Parameter, tensor_method


@tensor_method(
    "knots_ties",
    Parameter("density", "share of this model's aligned entries that is kept", 1.0, per_model=True, low=0.0, high=1.0),
    Parameter("lambda", "factor of the merged task vector", default=1.0),
    base="needed",
    on_device=True,
    taxon="subspace",
    formula="base + lambda * U TIES(S V_1^T, .., S V_p^T);  U S [V_1^T .. V_p^T] = [d_1 .. d_p]",
    reference="Stoica et al., Model Merging with SVD to Tie the Knots, arXiv 2410.19735",
)
def knots_ties(vectors: torch.Tensor, *, density: Sequence[float], lambda_: float = 1.0) -> torch.Tensor:
    """KnOTS-TIES of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2410.19735; TIES: arXiv 2306.01708).

    The p matrices (m, n) side by side give one basis U of their common output space; TIES trims, elects signs and
    averages what each has in it. Meant for LoRA adapters, where few directions carry weight; valid for any matrix.
    Tensors that are no matrices go through TIES as they are. Entries are trimmed by tensor; the paper trims over
    the whole model. As in the authors' code TIES works on ΣVᵀ, where the paper writes Vᵀ.

    The signs of U do not matter, since TIES treats both alike (where signs cancel exactly, the entry is zero); where
    singular values coincide, the basis, and with it the result, is a matter of choice. Costs one eigendecomposition of
    order min(m, p n) in float64.

    >>> knots_ties(torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[4.0, 0.0], [0.0, -6.0]]]), density=[1, 1])
    tensor([[ 3.,  0.],
            [ 0., -6.]])
    """
    if vectors.dim() != 3:
        return lambda_ * _ties(vectors, density)
    basis, _, _ = svd(torch.cat(list(vectors.double()), dim=1))
    # One product each, so that exactly opposite updates stay so; U^T d_i is S V_i^T.
    parts = torch.stack([basis.T @ vector.double() for vector in vectors])
    return (lambda_ * basis @ _ties(parts, density)).float()


def _ties(vectors: torch.Tensor, density: Sequence[float]) -> torch.Tensor:
    """TIES of vectors (p, \\*shape), in place: the mean of the largest entries of each that have the elected sign."""
    for vector, share in zip(vectors, density, strict=True):
        sizes = vector.abs().flatten()
        kept = max(1, int(share * sizes.numel()))
        if kept < sizes.numel():
            vector[vector.abs() < sizes.kthvalue(sizes.numel() - kept + 1).values] = 0.0
    elected = vectors.sum(dim=0).sign()
    agreeing = vectors.sign() == elected
    return vectors.mul_(agreeing).sum(dim=0) / agreeing.sum(dim=0).clamp_(min=1)
