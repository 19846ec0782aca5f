"""NearSwap: take over from a second model what is near to the base."""

import numpy as np
import torch

from kinship.compiled import kernel
from merging.kernels.sparsify import flat
from merging.registry import Parameter, tensor_method


@tensor_method(
    "nearswap",
    Parameter("t", "distance up to which elements are taken over", low=0.0),
    min_models=2,
    max_models=2,
    base="merged",
    taxon="weighted",
    formula="θ = w θ₁ + (1-w) θ₀;  w = min(1, t / |θ₀ - θ₁|)",
    reference="alchemonaut, QuartetAnemoi-70B-t0.0001, 2024; mergekit",
)
def nearswap(vectors: torch.Tensor, *, t: float) -> torch.Tensor:
    """NearSwap of base and model, tensors (2, \\*shape) fp32: (\\*shape) fp32. One pass.

    Elements within ``t`` of the base's are the model's; the others move by ``t`` towards them. As in mergekit distances
    count as 1e-6 at least, so that a ``t`` below that only goes part of the way.

    >>> nearswap(torch.tensor([[1.0, 1.0], [1.5, 3.0]]), t=0.5)
    tensor([1.5000, 1.5000])
    """
    base, other = flat(vectors)
    out = np.empty_like(base)
    _nearswap(base, other, np.float32(t), out)
    return torch.from_numpy(out).reshape(vectors.shape[1:])


@kernel()
def _nearswap(base, other, t, out):  # type: ignore[no-untyped-def]
    for k in range(out.size):
        weight = min(t / max(abs(base[k] - other[k]), np.float32(1e-6)), np.float32(1))
        out[k] = weight * other[k] + (np.float32(1) - weight) * base[k]
