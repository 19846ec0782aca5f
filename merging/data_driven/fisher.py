"""Fisher-weighted averaging of one tensor."""

from collections.abc import Sequence

import torch

from kinship.errors import InvalidConfig


def fisher_average(
    vectors: torch.Tensor, fishers: torch.Tensor, weights: Sequence[float], floor: float = 0.0
) -> torch.Tensor:
    """``sum_i w_i F_i v_i / sum_i w_i F_i`` of tensors and Fisher diagonals (p, \\*shape): (\\*shape).

    Fisher merging (Matena and Raffel, arXiv 2111.09832): the mode of a product of Gaussian posteriors of precision F_i.
    Entries of F below ``floor`` count as ``floor``. Where every w_i F_i is 0 the models are averaged by their weights.

    >>> fisher_average(torch.tensor([[1.0, 1.0], [4.0, 3.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]]), [1.0, 1.0])
    tensor([2., 2.])
    """
    factors = per_model(weights, vectors)
    precisions = fishers.clamp(min=floor) * factors
    total = precisions.sum(dim=0)
    silent = total == 0
    shares = torch.where(silent, factors / factors.sum(), precisions / torch.where(silent, 1.0, total))
    return (shares * vectors).sum(dim=0)


def average(vectors: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """``sum_i w_i v_i / sum_i w_i`` of tensors (p, \\*shape): for what there are no statistics of."""
    factors = per_model(weights, vectors)
    return (vectors * (factors / factors.sum())).sum(dim=0)


def per_model(weights: Sequence[float], vectors: torch.Tensor) -> torch.Tensor:
    """Weights as a tensor (p, 1, ..) beside ``vectors`` (p, \\*shape)."""
    return vectors.new_tensor(weights).reshape(-1, *[1] * (vectors.dim() - 1))


def require_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """``weights`` of ``count`` models, 1 each where there are none.

    Raises `InvalidConfig` unless they are as many, finite, none below 0 and one above.
    """
    found = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(found) != count or not all(0.0 <= weight < float("inf") for weight in found) or not any(found):
        raise InvalidConfig(
            f"The weights {found} were given for {count} models.", hint="Give one a model: 0 or more, and not all 0."
        )
    return found
