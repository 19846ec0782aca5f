"""Make a family in a process whose arithmetic is as little this processor's as torch allows.

Training magnifies a last bit into other models. One thread and a seed make it the same on one machine. What differs
between machines is which kernels run there: torch, MKL and oneDNN choose by the processor, when they are loaded. So
the family is made by a process that is started with the plainest of each, which every x86-64 processor has. What
remains: other versions of torch, other architectures (ARM), and the C library's own choice of exp and its like.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kinship.errors import SystemRefused
from service.demo.family import RECORD, Family, FamilySettings, Progress, make_family

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    Steps = SimpleQueue[tuple[str, int, int] | None]

PLAIN = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def make_family_alike(folder: Path, settings: FamilySettings, progress: Progress | None = None) -> Family:
    """`make_family`, in such a process. Cost: about twice its time, and 5 s to start it.

    Raises what `make_family` raises, and `SystemRefused` where the process is killed.
    """
    if (folder / RECORD).is_file():  # there already, or another's
        return make_family(folder, settings, progress)
    context = multiprocessing.get_context("spawn")
    steps: Steps = context.SimpleQueue()
    with _environment(PLAIN), ProcessPoolExecutor(1, context, _listen, (steps,)) as pool:
        future = pool.submit(_make, folder, settings)
        future.add_done_callback(lambda _: steps.put(None))
        for step in iter(steps.get, None):
            if progress is not None:
                progress(*step)
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise SystemRefused("The process that trained the family was killed.", hint="Is memory short?") from error


_told: "list[Steps]" = []  # of the started process: where it tells how far it is


def _listen(steps: "Steps") -> None:
    _told.append(steps)


def _make(folder: Path, settings: FamilySettings) -> Family:
    import torch

    torch.use_deterministic_algorithms(True)
    return make_family(folder, settings, lambda label, step, total: _told[0].put((label, step, total)))


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
