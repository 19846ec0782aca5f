"""Isotropic merging: the sum of the task vectors with all its directions made equally strong."""

import torch

from merging.kernels.spectral import svd
from merging.registry import Parameter, tensor_method


@tensor_method(
    "iso_c",
    Parameter("lambda", "factor of the merged task vector (the paper's alpha)", default=1.0),
    base="needed",
    on_device=True,
    taxon="subspace",
    formula="base + lambda * mean(S) U V^T;  U S V^T = sum_i d_i",
    reference="Marczak et al., No Task Left Behind, arXiv 2502.04959",
)
def iso_c(vectors: torch.Tensor, *, lambda_: float = 1.0) -> torch.Tensor:
    """Iso-C of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2502.04959).

    The singular values of the summed matrices are all replaced by their mean. Tensors that are no matrices are
    averaged, as in the authors' code. ``lambda`` applies to all.

    Directions in which the sum has no weight (rank below min(m, n), as of LoRA adapters) take no part: the mean is
    over the others, and they stay empty, where the authors' code fills them with whatever LAPACK returns. Rounding
    counts as weight: an adapter once merged and stored in bf16 has full rank, and its noise is flattened too.
    Costs one eigendecomposition of order min(m, n) in float64.

    >>> iso_c(torch.tensor([[[3.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, -1.0]]]))
    tensor([[ 2.,  0.],
            [ 0., -2.]])
    """
    if vectors.dim() != 3:
        return lambda_ * vectors.mean(dim=0)
    u, s, vh = svd(vectors.sum(dim=0, dtype=torch.float64))
    return ((u * (lambda_ * s.sum() / max(1, len(s)))) @ vh).float()
