"""How the tests call kernels: by method name, with the defaults of whatever is not said."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from merging.registry import get_method

Array = NDArray[np.float64]


def filled(name: str, **values: Any) -> dict[str, Any]:
    """All parameters of method ``name``: ``values``, and the defaults of the others."""
    return {parameter.name: parameter.default for parameter in get_method(name).parameters} | values


def merged(name: str, vectors: Array | torch.Tensor, *, seed: int = 0, has_base: bool = True, **values: Any) -> Array:
    """What the tensor kernel makes of a copy of ``vectors`` (p, ..) in fp32; a number alone is every model's."""
    tensors = torch.tensor(np.array(vectors), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    method = get_method(name)
    values = filled(name, **values)
    for parameter in method.parameters:
        if parameter.per_model and not isinstance(values[parameter.name], list):
            values[parameter.name] = [values[parameter.name]] * len(tensors)
    return method.tensor(tensors, values, has_base=has_base, generator=generator).double().numpy()


def combined(name: str, vectors: Array, *, has_base: bool = False, **values: Any) -> Array:
    """What the span kernel makes of ``vectors`` (p, ..) in float64; with a base, of task vectors, less the base."""
    flat = np.asarray(vectors, dtype=np.float64).reshape(len(vectors), -1)
    method = get_method(name)
    products = flat @ flat.T if method.needs_products else None
    combination = method.coefficients(products, filled(name, **values), has_base=has_base)
    if has_base or method.needs_base:
        assert abs(combination.base + sum(combination.models) - 1.0) < 1e-9
    else:
        assert combination.base == 0.0
    return np.asarray(np.tensordot(combination.models, vectors, 1))


def close(got: Array, want: Array, units: float = 4.0) -> None:
    """Assert that they differ by at most so many units of fp32 of the largest element."""
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0.0) <= units * 2.0**-23 * np.abs(want).max(initial=1e-30)
