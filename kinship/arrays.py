"""Arrays: types that all packages speak of, so that naming one imports no kernel; and those in ``.npz`` files."""

import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

_reading = threading.Lock()


def read_arrays(file: BinaryIO | Path) -> dict[str, NDArray[Any]]:
    """Every array of an ``.npz``, by name; no pickles. Raises what NumPy does: ValueError, OSError, `BadZipFile`.

    By one thread at a time: NumPy has Python parse each array's header, which CPython 3.11 does not survive in several
    (python/cpython#106905: SystemError).
    """
    with _reading, np.load(file, allow_pickle=False) as found:
        return dict(found)
