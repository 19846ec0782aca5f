import numpy as np
import pytest
import torch

from kinship.checkpoints.dtypes import DTYPES, DType, widen


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_torch_knows_the_dtype_by_the_same_facts(dtype: DType) -> None:
    assert dtype.torch.itemsize == dtype.itemsize
    assert dtype.torch.is_floating_point == dtype.is_floating_point


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_bit_pattern_widens_as_torch_widens_it(dtype: DType) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)  # all of one and two bytes, some of longer ones
    if dtype.name == "bool":
        patterns &= 1
    wanted = torch.from_numpy(patterns.copy()).view(dtype.torch).float().numpy()
    np.testing.assert_array_equal(widen(patterns, dtype), wanted)
