"""Second moments of rows of numbers: the kernel of the Gram pass, compiled for the CPU it runs on.

Rows come as stored (bf16 or fp32). Each tile of them is widened to fp32, the first row is subtracted from the others,
and inner products are accumulated, all while the tile is in cache; so memory is read once and nothing is written back.
Products are summed in fp32 by fixed lanes within a tile (`kinship.lanes`), and in float64 beyond: the same bits on
every CPU.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kinship.compiled import kernel
from kinship.lanes import dot, fill, fill_less, four_dots, gap, moments, moments_beside, pair_moments, part, two_dots

if TYPE_CHECKING:
    import torch


TILE = 2048


def task_vector_moments(rows: NDArray[Any], gram: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    """Add to ``gram`` (R, R) and ``sums`` (R,) the moments of [t0, t1 - t0, ..] for ``rows`` (R, m) = [t0, t1, ..].

    ``rows`` are float32, or bfloat16 as uint16 bit patterns. Only the lower triangle of ``gram`` is added to.
    Releases the GIL. Cost: about m * R^2 / 2 multiply-adds; memory: R * `TILE` floats.
    """
    _moments(rows, np.empty((len(rows), TILE), dtype=np.float32), gram, sums)


def task_vector_row(
    rows: NDArray[Any], model: NDArray[Any], products: NDArray[np.float64], gaps: NDArray[np.float64]
) -> float:
    """One more row of those moments: that of ``model`` (m,) beside ``rows`` (R, m) = [t0, t1, ..].

    Adds the inner products of its task vector d with [t0, t1 - t0, .., d] to ``products`` (R+1,), and its squared
    distances from t1, .., taken between the models themselves, to ``gaps`` (R,), of which the first stays. Returns the
    sum of d. ``rows`` and ``model`` are each float32, or bfloat16 as uint16 bit patterns. Cost: about 2 m R
    multiply-adds.
    """
    return float(_row(rows, model, np.empty((4, TILE), dtype=np.float32), products, gaps))


class CpuMoments:
    """`task_vector_moments` with a ``buffer`` to read rows to; one object belongs to one thread."""

    def __init__(self, elements: int) -> None:
        self.buffer = np.empty(elements, dtype=np.float32)

    def __call__(self, rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower triangle of the Gram (R, R), and sums (R,), for ``rows`` (R, m)."""
        gram, sums = np.zeros((len(rows), len(rows))), np.zeros(len(rows))
        task_vector_moments(rows, gram, sums)
        return gram, sums


@part
def _add_moments(tile, width, gram, sums):  # type: ignore[no-untyped-def]
    """Add those of the first ``width`` columns of ``tile``; products to the lower triangle of ``gram``."""
    count = tile.shape[0]
    for i in range(0, count - 1, 2):
        one, two = tile[i, :width], tile[i + 1, :width]
        for j in range(0, i, 2):
            products = four_dots(one, two, tile[j, :width], tile[j + 1, :width])
            gram[i, j] += products[0]
            gram[i, j + 1] += products[1]
            gram[i + 1, j] += products[2]
            gram[i + 1, j + 1] += products[3]
        own = pair_moments(one, two)
        sums[i] += own[0]
        sums[i + 1] += own[1]
        gram[i, i] += own[2]
        gram[i + 1, i] += own[3]
        gram[i + 1, i + 1] += own[4]
    if count == 1:
        own = moments(tile[0, :width])
        sums[0] += own[0]
        gram[0, 0] += own[1]
    elif count % 2:
        i = count - 1
        one = tile[i, :width]
        last = moments_beside(one, tile[0, :width], tile[1, :width])
        sums[i] += last[0]
        gram[i, i] += last[1]
        gram[i, 0] += last[2]
        gram[i, 1] += last[3]
        for j in range(2, i, 2):
            products = two_dots(one, tile[j, :width], tile[j + 1, :width])
            gram[i, j] += products[0]
            gram[i, j + 1] += products[1]


@kernel()
def _moments(rows, tile, gram, sums):  # type: ignore[no-untyped-def]
    for start in range(0, rows.shape[1], tile.shape[1]):
        stop = min(start + tile.shape[1], rows.shape[1])
        width = fill(rows[0, start:stop], tile[0])
        for i in range(1, rows.shape[0]):
            fill_less(rows[i, start:stop], tile[0], tile[i])
        _add_moments(tile, width, gram, sums)


@kernel()
def _row(rows, model, tile, products, gaps):  # type: ignore[no-untyped-def]
    """Returns the sum of the task vector of ``model``."""
    summed, last = 0.0, rows.shape[0]
    for start in range(0, rows.shape[1], tile.shape[1]):
        stop = min(start + tile.shape[1], rows.shape[1])
        width = fill(rows[0, start:stop], tile[0])
        base, vector, weights, other = tile[0, :width], tile[1, :width], tile[2, :width], tile[3, :width]
        fill(model[start:stop], weights)
        fill_less(model[start:stop], base, vector)
        own = moments(vector)
        summed += own[0]
        products[last] += own[1]
        products[0] += dot(vector, base)
        for i in range(1, last):
            fill(rows[i, start:stop], other)
            gaps[i] += gap(weights, other)
            fill_less(rows[i, start:stop], base, other)
            products[i] += dot(vector, other)
    return summed


# Elements multiplied in fp32 before sums go on in float64.
INNER = 512


class DeviceMoments:
    """Second moments of rows of stored numbers, on ``device``; what `kinship.measures.moments` computes on the CPU.

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
            gram, sums = _device_moments(vectors)
            return gram.cpu().numpy(), sums.cpu().numpy()  # waits for this stream


def _device_moments(vectors: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Gram (R, R) and sums (R,) of ``vectors`` (R, m) fp32: products in fp32 by blocks, their sums in float64."""
    import torch

    whole = vectors.shape[1] // INNER * INNER
    blocks = vectors[:, :whole].reshape(len(vectors), -1, INNER).transpose(0, 1)
    gram = torch.bmm(blocks, blocks.transpose(1, 2)).sum(0, dtype=torch.float64)
    rest = vectors[:, whole:]
    return gram + (rest @ rest.T).double(), vectors.sum(1, dtype=torch.float64)
