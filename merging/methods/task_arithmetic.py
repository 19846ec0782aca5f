"""Sum of task vectors."""

from collections.abc import Sequence

from merging.registry import Combination, Parameter, span_method


@span_method(
    "task_arithmetic",
    Parameter("weight", "factor of this model's task vector", per_model=True),
    Parameter("normalize", "divide the weights by their sum", default=False),
    Parameter("lambda", "factor of the sum of task vectors", default=1.0),
    base="needed",
    formula="θ = θ₀ + λ Σᵢ wᵢ τᵢ",
    reference="Ilharco et al., Editing Models with Task Arithmetic, arXiv 2212.04089",
)
def task_arithmetic(weight: Sequence[float], normalize: bool = False, lambda_: float = 1.0) -> Combination:
    """``base + lambda * sum_i w_i (m_i - base)`` over p models (Ilharco et al., arXiv 2212.04089, section 3).

    A divisor within 1e-8 of zero counts as 1, as in mergekit.

    >>> task_arithmetic([1, 0.5], lambda_=0.5)
    Combination(base=0.25, models=(0.5, 0.25))
    """
    total = sum(weight) if normalize else 1.0
    factor = lambda_ / (total if abs(total) >= 1e-8 else 1.0)
    return Combination(1.0 - factor * sum(weight), tuple(factor * w for w in weight))
