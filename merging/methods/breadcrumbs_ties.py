"""Model Breadcrumbs with sign election."""

from collections.abc import Sequence
from typing import Any

import torch

from merging.kernels.sparsify import DENSITY, GAMMA, flat, keep_middle, sparse_sum, sum_parameters
from merging.registry import tensor_method


@tensor_method(
    "breadcrumbs_ties",
    *sum_parameters(DENSITY, GAMMA),
    needs_base=True,
    on_task_vectors=True,
    taxon="sparsified",
    formula="θ = θ₀ + λ Σᵢ∈A wᵢ mᵢ ⊙ τᵢ;  mᵢ = 1[gamma n < rank |τᵢ| ≤ (gamma + density) n],  A as in TIES",
    reference="Davari & Belilovsky, Model Breadcrumbs, arXiv 2312.06795",
)
def breadcrumbs_ties(
    vectors: torch.Tensor,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    normalize: bool = False,
    rescale: bool = False,
    **rest: Any,
) -> torch.Tensor:
    """Breadcrumbs of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2312.06795, section 3).

    Then TIES' sign election (arXiv 2306.01708).
    See `keep_middle` for what stays and `sparse_sum` for the other parameters.
    """
    rows = flat(vectors)
    keeps = [keep_middle(row, share, outliers) for row, share, outliers in zip(rows, density, gamma, strict=True)]
    return sparse_sum(vectors, keeps, weight, elect=True, normalize=normalize, rescale=rescale, **rest)
