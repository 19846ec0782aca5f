"""Rounding grids against torch's own rounding."""

import numpy as np
import pytest
import torch

from kinship.heritage.grids import grid_of, lattice_step, to_grid
from kinship.heritage.sampling import Sample
from tests.kinship.heritage.recipes import quantise


@pytest.mark.parametrize("grid", ["bfloat16", "float16"])
def test_rounding_is_torchs(grid: str) -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 3
    wanted = values.to(getattr(torch, grid)).float().numpy()
    assert np.array_equal(to_grid(values.numpy(), grid), wanted)
    assert grid_of([Sample("w", (0,), wanted.reshape(1, 50, 100))], 0) == grid
    assert grid_of([Sample("w", (0,), values.numpy().reshape(1, 50, 100))], 0) == "float32"


@pytest.mark.parametrize("layout", ["row", "tensor", "group"])
@pytest.mark.parametrize("bits", [4, 8])
def test_lattices_are_seen_with_their_steps(bits: int, layout: str) -> None:
    weights = torch.randn(24, 64, generator=torch.Generator().manual_seed(bits))
    back = quantise({"w": weights}, bits, layout)["w"]
    step = lattice_step(back.numpy())
    assert step is not None
    assert ((weights - back).abs().numpy() <= 0.51 * step).all()
    assert lattice_step(weights.numpy()) is None
