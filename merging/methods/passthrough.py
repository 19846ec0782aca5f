"""One model as it is, or scaled."""

from collections.abc import Sequence

from merging.registry import Combination, Parameter, span_method


@span_method(
    "passthrough",
    Parameter("scale", "factor of the model's tensors", default=1.0, per_model=True),
    max_models=1,
    formula="θ = s θ₁",
    reference="mergekit",
)
def passthrough(scale: Sequence[float]) -> Combination:
    """``scale * m`` of one model.

    >>> passthrough([1.0])
    Combination(base=0.0, models=(1.0,))
    """
    return Combination(0.0, tuple(scale))
