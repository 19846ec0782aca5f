"""A random task vector as long as a model's in every tensor: the control that has learned nothing."""

import numpy as np
import torch

from merging.registry import tensor_method


@tensor_method(
    "random_vector",
    min_models=1,
    max_models=1,
    base="needed",
    random=True,
    taxon="basic",
    formula="θ = θ₀ + |τ₁| g / |g|;  g ~ N(0, 1)",
    reference="a control; of randomly initialised adapters: arXiv 2602.12323",
)
def random_vector(vectors: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """A vector (\\*shape) fp32 of normally distributed elements, of the Euclidean length of ``vectors`` (1, \\*shape).

    Lengths are taken in float64; a vector of zeros stays one. Draws one number from ``generator``, the seed of NumPy's
    Philox, whose numbers do not depend on the CPU. Cost: one draw an element.

    >>> drawn = random_vector(torch.tensor([[3.0, 4.0]]), generator=torch.Generator().manual_seed(1))
    >>> round(float(drawn.double().norm()), 6)
    5.0
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    given = vectors[0].double().reshape(-1).numpy()
    drawn = np.random.Generator(np.random.Philox(seed)).standard_normal(given.size, dtype=np.float32).astype(np.float64)
    drawn *= np.linalg.norm(given) / max(float(np.linalg.norm(drawn)), np.finfo(np.float64).tiny)
    return torch.from_numpy(drawn).float().reshape(vectors.shape[1:])
