"""What work costs: seconds and memory, as measured by whoever does it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """seconds: of the wall. memory: bytes in use at the peak beyond those at the start; None where the system does
    not tell. flops: floating-point operations, where they were counted.
    """

    seconds: float = 0.0
    memory: int | None = None
    flops: int | None = None


@contextmanager
def measured_cost() -> Iterator[Cost]:
    """Yield what is filled in when the block ends, however it ends."""
    cost = Cost()
    before, start = _restarted(), time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - start
        cost.memory = None if before is None else max(0, _field("VmHWM") - before)


def _restarted() -> int | None:
    """Bytes in use now, from which the peak is counted anew; None where Linux does not count it for us."""
    try:
        _RESET.write_text("5")  # proc(5): the peak begins at what is in use now
        return _field("VmRSS")
    except (OSError, StopIteration):
        return None


def _field(name: str) -> int:
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
