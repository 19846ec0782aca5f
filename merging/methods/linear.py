"""Weighted average, optionally with its task vector scaled."""

from collections.abc import Sequence

from kinship.errors import InvalidConfig
from merging.registry import Combination, Parameter, span_method


@span_method(
    "linear",
    Parameter("weight", "share of this model", per_model=True),
    Parameter("normalize", "divide the weights by their sum", default=True),
    Parameter("scale", "stretch the average's task vector by this factor (needs a base model)", default=1.0),
    formula="θ = θ₀ + scale (Σᵢ wᵢ θᵢ / Σᵢ wᵢ - θ₀)",
    reference="Wortsman et al., Model soups, arXiv 2203.05482; scale: Ilharco et al., arXiv 2212.04089",
)
def linear(weight: Sequence[float], normalize: bool = True, scale: float = 1.0) -> Combination:
    """Average of p models: ``base + scale * (sum_i w_i m_i / sum_i w_i - base)``.

    With ``scale`` 1 the base drops out: model soups (Wortsman et al., arXiv 2203.05482). Other scales are task
    arithmetic with lambda = scale (Ilharco et al., arXiv 2212.04089).

    >>> linear([1, 3])
    Combination(base=0.0, models=(0.25, 0.75))
    """
    total = sum(weight) if normalize else 1.0
    if abs(total) < 1e-12:
        raise InvalidConfig("The weights of a linear merge sum to zero.", hint="Set normalize: false to mean it.")
    if scale == 1.0:
        return Combination(0.0, tuple(w / total for w in weight))
    if not normalize:
        raise InvalidConfig("scale needs normalized weights.", hint="Use task_arithmetic with lambda instead.")
    return Combination(1.0 - scale, tuple(scale * w / total for w in weight))
