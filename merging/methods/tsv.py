"""Task singular vectors: the leading directions of each task vector, made orthogonal to those of the others."""

import torch

from merging.kernels.spectral import polar, svd
from merging.registry import Parameter, tensor_method


@tensor_method(
    "tsv",
    Parameter("lambda", "factor of the merged task vector (the paper's alpha)", default=1.0),
    base="needed",
    on_device=True,
    taxon="subspace",
    formula="base + lambda * polar([U_1 .. U_p]) [S_1 .. S_p] polar([V_1 .. V_p])^T;  U_i S_i V_i^T: d_i at rank 1/p",
    reference="Gargiulo et al., Task Singular Vectors, arXiv 2412.00081",
)
def tsv(vectors: torch.Tensor, *, lambda_: float = 1.0) -> torch.Tensor:
    """TSV-Merge of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2412.00081).

    Of each matrix (m, n) the min(m, n) // p leading singular triplets are kept (at least one). All left vectors side
    by side are replaced by the nearest orthonormal ones (orthogonal Procrustes), all right vectors likewise, and the
    product is formed again. Tensors that are no matrices are averaged. ``lambda`` applies to all.

    Vectors of no singular value, and directions in which those of several tasks coincide, have no orthonormal
    neighbour of their own: they stay out, where the authors' code takes whatever LAPACK returns. So equal models give
    their common task vector cut to its leading 1/p. A singular value repeated across the cut leaves the choice open.
    Costs p + 2 eigendecompositions of order min(m, n) in float64.

    >>> tsv(torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]]))
    tensor([[3., 0.],
            [0., 2.]])
    """
    if vectors.dim() != 3:
        return lambda_ * vectors.mean(dim=0)
    count = max(1, min(vectors.shape[1:]) // len(vectors))
    lefts, values, rights = zip(*(svd(vector.double(), count) for vector in vectors), strict=True)
    left, spectrum, right = torch.cat(lefts, dim=1), torch.cat(values), torch.cat(rights)
    return ((polar(left) * (lambda_ * spectrum)) @ polar(right)).float()
