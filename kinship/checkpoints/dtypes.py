"""How numbers are stored in checkpoints, and how they become fp32; without torch, whose import costs over a second."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DType:
    """A storage format by torch's name for it. ``itemsize`` in bytes."""

    name: str
    itemsize: int
    is_floating_point: bool

    def __str__(self) -> str:
        return self.name

    @property
    def torch(self) -> "torch.dtype":
        """The same as torch has it."""
        import torch

        found = getattr(torch, self.name)
        assert isinstance(found, torch.dtype)
        return found


FLOAT32, BFLOAT16 = DType("float32", 4, True), DType("bfloat16", 2, True)

# By the names of the safetensors format.
DTYPES: dict[str, DType] = {
    "F64": DType("float64", 8, True),
    "F32": FLOAT32,
    "F16": DType("float16", 2, True),
    "BF16": BFLOAT16,
    "F8_E4M3": DType("float8_e4m3fn", 1, True),
    "F8_E5M2": DType("float8_e5m2", 1, True),
    "I64": DType("int64", 8, False),
    "I32": DType("int32", 4, False),
    "I16": DType("int16", 2, False),
    "I8": DType("int8", 1, False),
    "U64": DType("uint64", 8, False),
    "U32": DType("uint32", 4, False),
    "U16": DType("uint16", 2, False),
    "U8": DType("uint8", 1, False),
    "BOOL": DType("bool", 1, False),
}

# What the format knows besides: numbers of other hardware, scales and codes of quantised weights, complex numbers.
NOT_COMPUTED = frozenset({"F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4", "C64"})

BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}


def widen(stored: NDArray[np.uint8], dtype: DType) -> NDArray[np.float32]:
    """The numbers in ``stored`` bytes as fp32, flat; a view where they are fp32 already. Any dtype of `DTYPES`.

    >>> widen(np.array([0x80, 0x3F], dtype=np.uint8), BFLOAT16).tolist()
    [1.0]
    """
    numbers: NDArray[Any]
    if dtype == BFLOAT16:
        return (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype.name.startswith("float8"):  # numpy has none
        import torch

        return np.asarray(torch.from_numpy(stored).view(dtype.torch).float().numpy(), dtype=np.float32)
    numbers = stored.view(dtype.name)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # of float64: infinity is what it becomes, and is reported as such
        return numbers.astype(np.float32, copy=False)
