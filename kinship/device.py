"""The Gram pass on an accelerator. UNTESTED on CUDA: no GPU was at hand; the tests run the same code on torch's CPU.

Each reading thread has a buffer of pinned memory and a stream of its own, so that one thread's copy to the device and
products overlap with another's reading.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kinship.errors import InvalidConfig

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")

# Elements multiplied in fp32 before sums go on in float64.
INNER = 512


def choose_device(name: str) -> str:
    """``cpu`` or ``cuda`` for one of `DEVICES`; ``auto`` is CUDA where there is one.

    Raises `InvalidConfig` for another name, and for ``cuda`` where torch finds none.
    """
    if name not in DEVICES:
        raise InvalidConfig(f"There is no device {name!r}.", hint=f"Use one of: {', '.join(DEVICES)}.")
    # Without a driver there is no need to import torch to find out.
    if name == "cpu" or (name == "auto" and not os.path.exists("/proc/driver/nvidia")):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise InvalidConfig("torch finds no CUDA device here.", hint="Use --device cpu, or install torch with CUDA.")
    return "cpu"


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """While this lasts, fp32 products on ``device`` are made of all their bits: TF32 keeps 10 of 23."""
    if device == "cpu":
        yield
        return
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class DeviceMoments:
    """Second moments of rows of stored numbers, on ``device``; what `kinship.moments` computes on the CPU.

    ``buffer`` (fp32, as many elements as asked for) is where rows are to be read to: pinned memory for CUDA. One object
    belongs to one thread. Device memory: about 12 bytes an element.
    """

    def __init__(self, elements: int, device: str) -> None:
        import torch

        self._device = torch.device(device)
        on_cuda = self._device.type == "cuda"
        self._pinned = torch.empty(elements, dtype=torch.float32, pin_memory=on_cuda)
        self._stream = torch.cuda.Stream(self._device) if on_cuda else None  # type: ignore[no-untyped-call]
        self.buffer: NDArray[np.float32] = self._pinned.numpy()

    def __call__(self, rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gram (R, R) and sums (R,) of [t0, t1 - t0, ..] for ``rows`` (R, m), which lie in ``buffer``."""
        import torch

        stored = torch.from_numpy(rows)
        if rows.dtype == np.uint16:
            stored = stored.view(torch.bfloat16)
        with torch.cuda.stream(self._stream), torch.inference_mode():  # a stream of None changes nothing
            vectors = stored.to(self._device, non_blocking=True).float()
            vectors[1:] -= vectors[0]
            gram, sums = _moments(vectors)
            return gram.cpu().numpy(), sums.cpu().numpy()  # waits for this stream


def _moments(vectors: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Gram (R, R) and sums (R,) of ``vectors`` (R, m) fp32: products in fp32 by blocks, their sums in float64."""
    import torch

    whole = vectors.shape[1] // INNER * INNER
    blocks = vectors[:, :whole].reshape(len(vectors), -1, INNER).transpose(0, 1)
    gram = torch.bmm(blocks, blocks.transpose(1, 2)).sum(0, dtype=torch.float64)
    rest = vectors[:, whole:]
    return gram + (rest @ rest.T).double(), vectors.sum(1, dtype=torch.float64)
