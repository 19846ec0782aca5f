"""Streaming over tensors of several models in chunks, on all cores: what every pass over the weights is made of."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import BFLOAT16, FLOAT32
from kinship.errors import NonFiniteWeights
from kinship.threads import worker_count

# Elements that a thread reads of all models together before it reduces them: enough to make reading cheap, few enough
# to stay in cache until they are used.
CHUNK_ELEMENTS, MIN_CHUNK = 1 << 21, 1 << 14

Source = tuple[Checkpoint, str]
"""A tensor of a model, by name."""

Result_co = TypeVar("Result_co", covariant=True)


class Reducer(Protocol[Result_co]):
    """Reduces chunks of rows (R, m), read into its ``buffer`` (fp32); one object belongs to one thread."""

    @property
    def buffer(self) -> NDArray[np.float32]:
        """Memory for the rows of a chunk."""
        ...

    def __call__(self, rows: NDArray[Any]) -> Result_co:
        """What becomes of a chunk of the models: see `read_rows`."""
        ...


def map_chunks(
    models: Sequence[Checkpoint],
    names: Sequence[str],
    make: Callable[[int], Reducer[Result_co]],
    progress: Callable[[int], None] | None = None,
    chunk: int | None = None,
) -> Iterator[tuple[int, Result_co]]:
    """Yield (index of the tensor in ``names``, what a reducer makes of a chunk of it), in order; bytes are read once.

    Chunks of ``chunk`` elements a model are read and reduced side by side on `worker_count` threads; ``make`` gives
    each thread a reducer for so many elements. ``progress`` is told the number of bytes done since the last call.
    """
    chunk = chunk or chunk_elements(len(models))
    jobs = [(index, *block) for index, name in enumerate(names) for block in models[0].blocks(name, chunk)]
    own = threading.local()

    def reduce(job: tuple[int, int, int]) -> Result_co:
        index, start, count = job
        if not hasattr(own, "reducer"):
            own.reducer = make(len(models) * chunk)
        reducer: Reducer[Result_co] = own.reducer
        return reducer(read_rows([(model, names[index]) for model in models], start, count, reducer.buffer))

    with ThreadPoolExecutor(worker_count()) as pool:
        try:
            for (index, _, count), result in zip(jobs, pool.map(reduce, jobs), strict=True):
                yield index, result
                if progress is not None:
                    progress(sum(count * model.tensors[names[index]].dtype.itemsize for model in models))
        finally:
            pool.shutdown(cancel_futures=True)


def chunk_elements(rows: int) -> int:
    """Elements of each of ``rows`` models that a thread reads at a time."""
    return max(MIN_CHUNK, CHUNK_ELEMENTS // rows)


def read_rows(
    sources: Sequence[Source], start: int, count: int, buffer: NDArray[np.float32], *, as_stored: bool = True
) -> NDArray[Any]:
    """A chunk of the tensors ``sources`` (R, count): bf16 bit patterns or fp32, whichever all are stored in.

    Other and mixed dtypes are widened to fp32; so is bf16 unless ``as_stored``. ``buffer`` (at least R * count floats)
    holds the result.
    """
    dtypes = {model.tensors[name].dtype for model, name in sources}
    if dtypes <= {FLOAT32} or (as_stored and dtypes <= {BFLOAT16}):
        stored = buffer.view(np.uint16) if BFLOAT16 in dtypes else buffer
        rows: NDArray[Any] = stored[: len(sources) * count].reshape(len(sources), count)
        for row, (model, name) in zip(rows, sources, strict=True):
            model.read_into(name, start, row.data.cast("B"))
        return rows
    rows = buffer[: len(sources) * count].reshape(len(sources), count)
    for row, (model, name) in zip(rows, sources, strict=True):
        row[:] = model.floats(name, start, count)
    return rows


def non_finite(name: str, models: Sequence[Checkpoint]) -> NonFiniteWeights:
    """What to raise where tensor ``name`` gave NaN or infinity: whose weights they are, or that a square overflowed."""
    for model in models:
        if not all(np.isfinite(model.floats(name, *block)).all() for block in model.blocks(name)):
            return damaged(name, model)
    return NonFiniteWeights(
        f"The squared norm of tensor {name!r} overflows float32.", hint="Weights this large are not usable."
    )


def damaged(name: str, model: Checkpoint) -> NonFiniteWeights:
    """What to raise where tensor ``name`` of ``model`` holds NaN or infinity."""
    return NonFiniteWeights(
        f"Tensor {name!r} of {model.id} holds NaN or infinity.",
        hint="That checkpoint is damaged or its training diverged; leave it out.",
    )
