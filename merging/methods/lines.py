"""LiNeS: task vectors that count for more the deeper their layer."""

from collections.abc import Sequence

from merging.registry import Combination, Parameter, span_method


@span_method(
    "lines",
    Parameter("weight", "factor of this model's task vector", default=1.0, per_model=True),
    Parameter("lambda", "factor by layer: the gradient [alpha, alpha + beta], from the first layer to the last"),
    base="needed",
    taxon="weighted",
    formula="base + lambda(l) * sum_i w_i d_i;  lambda(l) = alpha + beta * (l - 1) / (L - 1) for layer l of L",
    reference="Wang et al., LiNeS, arXiv 2410.17146",
)
def lines(weight: Sequence[float], lambda_: float) -> Combination:
    """``base + lambda(l) * sum_i w_i (m_i - base)`` over p models (arXiv 2410.17146).

    The kernel is task arithmetic; the layer enters through the parameter, which has no default so that it must be
    said: ``lambda: [0.2, 1.0]`` is alpha 0.2 and beta 0.8. Tensors outside the layers (embeddings, head) get alpha, as
    in the authors' code. The same gradient on the ``lambda`` of another method puts LiNeS on top of it.

    >>> lines([1, 1], lambda_=0.25)
    Combination(base=0.5, models=(0.25, 0.25))
    """
    coefficients = [lambda_ * w for w in weight]
    return Combination.of_vectors(coefficients, has_base=True)
