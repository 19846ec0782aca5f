import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kinship.checkpoints.dtypes import DTYPES, DType, widen
from tests.conftest import MakeModel


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


def test_a_matrix_is_made_without_torch(make_model: MakeModel) -> None:
    """Its import costs more time and memory than the whole comparison of small models."""
    base = make_model("base", dtype=torch.float16)
    models = [make_model(f"m{seed}", seed, base, dtype=torch.bfloat16) for seed in (1, 2)]
    code = "import sys; from service.cli import app; app(sys.argv[1:], standalone_mode=False); "
    code += "assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "matrix", *map(str, models), "--base", str(base)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert run.returncode == 0, run.stderr
