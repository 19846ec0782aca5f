"""Model Stock: the mean of fine-tuned models, drawn towards the base as far as they disagree."""

from typing import TYPE_CHECKING

import numpy as np

from kinship.arrays import Float64
from merging.kernels.rows import combine, line_products
from merging.registry import Combination, Parameter, span_method

if TYPE_CHECKING:
    import torch


def ratio(products: Float64) -> Float64:
    """Share t (..) of the mean, the rest being the base's, from inner products (.., p, p) of p task vectors.

    t = p cos / (1 + (p - 1) cos), cos the mean cosine of pairs (arXiv 2403.19522, eq. 7). As in mergekit products of
    norms count as 1e-6 at least, so that tiny task vectors have cosine 0, and a vanishing denominator keeps the base.
    """
    count = products.shape[-1]
    norms = np.sqrt(np.maximum(np.diagonal(products, axis1=-2, axis2=-1), 0.0))
    one, other = np.triu_indices(count, 1)
    cosines = products[..., one, other] / np.maximum(norms[..., one] * norms[..., other], 1e-6)
    cosine = cosines.mean(axis=-1)
    denominator = 1.0 + (count - 1) * cosine
    keeps_base = np.abs(denominator) < 1e-6
    share: Float64 = np.where(keeps_base, 0.0, count * cosine / np.where(keeps_base, 1.0, denominator))
    return share


def model_stock_lines(vectors: "torch.Tensor", *, filter_wise: bool) -> "torch.Tensor":
    """Model Stock with a share for each line along the last dimension of (p, \\*shape) fp32: (\\*shape) fp32."""
    share = ratio(line_products(vectors, -1))[:, None] / len(vectors)
    return combine(vectors, np.repeat(share, len(vectors), axis=1), -1)


@span_method(
    "model_stock",
    Parameter("filter_wise", "a share for each row, not for each tensor", default=False, kind="boolean"),
    merge=model_stock_lines,
    outside_span=lambda values: bool(values["filter_wise"]),
    min_models=2,
    base="needed",
    needs_products=True,
    taxon="weighted",
    formula="θ = t mean(θᵢ) + (1-t) θ₀;  t = N cos φ / (1 + (N-1) cos φ)",
    reference="Jang et al., Model Stock, arXiv 2403.19522",
)
def model_stock(products: Float64, filter_wise: bool = False) -> Combination:
    """``t * mean_i m_i + (1 - t) * base`` from the inner products (p, p) of the task vectors (arXiv 2403.19522).

    >>> model_stock(np.array([[1.0, 0.0], [0.0, 1.0]]))
    Combination(base=1.0, models=(0.0, 0.0))
    """
    count = len(products)
    return Combination.of_vectors([float(ratio(products)) / count] * count, has_base=True)
