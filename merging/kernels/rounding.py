"""Which dtype a merge has, and rounding to it: to nearest, ties to even, once; without torch but for float8."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.dtypes import BFLOAT16, BY_NAME, FLOAT32, DType
from merging.kernels.weighted_sum import to_bf16

# What one holds exactly, the other does too; float8 is not in it: it joins others as bfloat16, which holds both kinds.
_WIDER = {
    "float16": {"float32", "float64"},
    "bfloat16": {"float32", "float64"},
    "float32": {"float64"},
    "float64": set(),
}


def promoted(dtypes: Iterable[DType]) -> DType:
    """The narrowest floating dtype that holds all ``dtypes`` exactly, as torch promotes them.

    >>> str(promoted([BY_NAME["bfloat16"], BY_NAME["float16"]]))
    'float32'
    """
    names = {dtype.name for dtype in dtypes}
    if len(names) == 1:
        return BY_NAME[names.pop()]
    names = {"bfloat16" if name.startswith("float8") else name for name in names}
    wider = next(
        name
        for name in ("bfloat16", "float16", "float32", "float64")
        if all(other == name or name in _WIDER[other] for other in names)
    )
    return BY_NAME[wider]


def rounds(stored: DType, dtype: DType | None) -> bool:
    """Whether numbers stored as ``stored`` change when they are rounded to ``dtype``."""
    return dtype is not None and dtype != stored and dtype.name not in _WIDER.get(stored.name, {"bfloat16", "float32"})


def narrow(numbers: NDArray[np.float32], dtype: DType) -> NDArray[Any]:
    """``numbers`` rounded to ``dtype``: an array whose bytes are the stored form (bf16 and float8 as bit patterns)."""
    if dtype == FLOAT32:
        return numbers
    if dtype == BFLOAT16:
        return to_bf16(numbers)
    if dtype.name.startswith("float8"):  # numpy has none
        import torch

        return torch.from_numpy(numbers).to(dtype.torch).view(torch.uint8).numpy()
    with np.errstate(over="ignore"):  # infinity is what becomes of it, and is reported as such
        return numbers.astype(dtype.name)
