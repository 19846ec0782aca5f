"""WUDI: the task vector that interferes least with each of the others, found by descent."""

import torch

from merging.registry import Parameter, tensor_method


@tensor_method(
    "wudi",
    Parameter("steps", "steps of Adam; 0 leaves the sum of the task vectors", default=300, kind="integer", low=0),
    Parameter("rate", "learning rate: how far an entry moves in a step", default=1e-5, low=0.0),
    base="needed",
    on_device=True,
    taxon="optimised",
    formula="base + argmin_d sum_i |(d - d_i) d_i^T|^2 / |d_i|^2, by Adam from d = sum_i d_i",
    reference="Cheng et al., Whoever Started the Interference Should End It, arXiv 2503.08099",
)
def wudi(vectors: torch.Tensor, *, steps: int = 300, rate: float = 1e-5) -> torch.Tensor:
    """WUDI-Merging of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2503.08099).

    A linear layer's task vector spans its inputs, so what (d - d_i) does to d_i's own rows is interference. The loss is
    quadratic: its gradient is 2 (d H - B), H = sum_i d_i^T d_i / |d_i|^2, B = sum_i d_i d_i^T d_i / |d_i|^2.
    The paper stops long before the minimum, and so do the defaults, which suit entries around 1e-3.

    Tensors that are no matrices are averaged (the paper merges linear layers alone and says nothing of the rest). The
    kernel cannot tell an embedding from a linear layer: give ``steps: [{filter: embed, value: 0}, {value: 300}]`` to
    have embeddings summed. No randomness. Costs ``steps`` products (m, n) x (n, n) and n * n floats.

    >>> wudi(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    tensor([[1., 1.]])
    """
    if vectors.dim() != 3:
        return vectors.mean(dim=0)
    merged = vectors.sum(dim=0)
    hessian = merged.new_zeros(merged.shape[1], merged.shape[1])
    target = torch.zeros_like(merged)
    for vector in vectors:
        square = vector.square().sum()
        if square > 0:
            products = vector.T @ (vector / square)
            hessian += products
            target += vector @ products
    adam = torch.optim.Adam([merged], lr=rate, foreach=False)
    for _ in range(steps):
        merged.grad = torch.addmm(target, merged, hessian, beta=-1.0).mul_(2.0)
        adam.step()
    merged.grad = None
    return merged
