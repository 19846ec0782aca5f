"""Consensus merging: the sum of the task vectors where more than one task uses it."""

from collections.abc import Sequence

import torch

from merging.registry import Parameter, tensor_method


@tensor_method(
    "consensus",
    Parameter(
        "threshold",
        "how large this model's entry must be beside its distance from the sum (the paper's lambda_t, 0.2 to 0.6)",
        default=0.4,
        per_model=True,
        low=0.0,
    ),
    Parameter(
        "agree", "how many models must use an entry for it to stay (the paper's k)", default=2, kind="integer", low=0
    ),
    Parameter("lambda", "factor of the merged task vector", default=1.0),
    base="needed",
    on_device=True,
    taxon="sparsified",
    formula="base + lambda * m * sum_i d_i;  m = [sum_i [|d_i| >= threshold_i * |sum_j d_j - d_i|] >= agree]",
    reference="Wang et al., Localizing Task Information, arXiv 2405.07813",
)
def consensus(
    vectors: torch.Tensor, *, threshold: Sequence[float], agree: int = 2, lambda_: float = 1.0
) -> torch.Tensor:
    """Consensus task arithmetic of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2405.07813).

    A task uses the entries that its TALL mask keeps. ``agree`` 1 drops what no task uses (catastrophic weights), 2
    also what a single one uses (selfish weights), 0 nothing: task arithmetic; more than p leaves the base model.
    Entry by entry, so tensor by tensor is the paper's method exactly. Costs p + 1 passes over the input.

    >>> consensus(torch.tensor([[1.0, 1.0, 5.0], [1.0, -1.0, 0.1]]), threshold=[0.5, 0.5])
    tensor([2., 0., 0.])
    """
    total = vectors.sum(dim=0)
    users = torch.zeros(total.shape, dtype=torch.int16, device=total.device)
    for vector, factor in zip(vectors, threshold, strict=True):
        users += vector.abs() >= factor * (total - vector).abs()  # TALL mask
    return lambda_ * total * (users >= agree)
