"""Types of arrays that all packages speak of, so that naming one imports no kernel."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
