"""The Gram pass on an accelerator. UNTESTED on CUDA: no GPU was at hand. The tests run the same code on torch's CPU
and on a device that torch pretends to have, where tensors of two devices may not meet; `benchmarks/gpu.py` awaits one.

Each reading thread has a buffer of pinned memory and a stream of its own, so that one thread's copy to the device and
products overlap with another's reading.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kinship.errors import InvalidConfig

DEVICES = ("auto", "cpu", "cuda")


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
