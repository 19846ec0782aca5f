"""From model references to a kinship matrix."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from kinship.alignment import align
from kinship.checkpoint import open_checkpoint
from kinship.gram import gram_table
from kinship.matrix import KinshipMatrix
from kinship.metrics import get_metric


def kinship_matrix(
    models: Sequence[str | Path],
    base: str | Path,
    metric: str = "pcc",
    progress: Callable[[int, int], None] | None = None,
) -> KinshipMatrix:
    """Kinship of ``models``, fine-tunes of ``base``: each a local folder or a ``.safetensors`` file.

    ``metric`` is ``pcc``, ``cosine`` or ``euclidean``. ``progress(done, total)`` is told bytes. Reads every file once,
    in a few MB of memory. Raises the errors of `open_checkpoint`, `align` and `gram_table`.
    """
    get_metric(metric)
    with ExitStack() as stack:
        opened_base = stack.enter_context(open_checkpoint(base))
        opened = [stack.enter_context(open_checkpoint(model)) for model in models]
        alignment = align(opened_base, opened)
        total = sum(model.tensors[name].nbytes for model in [opened_base, *opened] for name in alignment.names)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        table = gram_table(opened_base, opened, alignment, advance)
    return KinshipMatrix.from_gram(table, metric, alignment.left_out)
