"""What a comparison would do, from headers alone; those of Hub models are read there, and no weights downloaded."""

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.outline import outlines
from kinship.checkpoints.references import listed
from kinship.measures.alignment import Alignment
from kinship.measures.comparison import open_aligned
from kinship.measures.gram import gram_table, peak_memory
from kinship.measures.gram_memory import recall_table
from kinship.measures.options import DEFAULTS, ComparisonOptions

_TRIAL_BYTES = 64_000_000


@dataclass(frozen=True)
class Preflight:
    """What a comparison would do: sizes in bytes, ``seconds`` estimated from a short trial on these files.

    ``bytes_to_download`` counts what the Hub cache lacks of the models' files. Where weights are missing,
    ``weights_here`` is false, and zeros took their place in the trial.
    """

    models: int
    tensors: int
    parameters: int
    bytes_to_download: int
    bytes_to_read: int
    peak_memory: int
    seconds: float
    weights_here: bool
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON object."""
        return {"schema": "kinship.matrix-plan/1", **asdict(self)}


def preflight(models: Iterable[str | Path], base: str | Path, options: ComparisonOptions = DEFAULTS) -> Preflight:
    """Align from headers, and time the pass on the first tensors. Raises what the comparison itself would raise."""
    models = listed(models)
    with outlines(tokenizers=options.vocab == "shared") as hub, ExitStack() as stack:
        opened, alignment = open_aligned([base, *models], stack, options, hub.fetch)
        total = sum(model.tensors[name].nbytes for model in opened for name in alignment.names)
        if recall_table(opened[0], opened[1:], alignment, exact=False) is not None:
            total = 0
        return Preflight(
            models=len(models),
            tensors=len(alignment.names),
            parameters=sum(opened[0].tensors[name].count for name in alignment.names),
            bytes_to_download=hub.bytes_to_download,
            bytes_to_read=total,
            peak_memory=peak_memory(len(opened)),
            seconds=_trial(opened, alignment.names) * total if total else 0.0,
            weights_here=hub.weights_here,
            left_out=alignment.left_out,
        )


def _trial(models: Sequence[Checkpoint], names: Sequence[str]) -> float:
    """Seconds a byte, over the first tensors of up to `_TRIAL_BYTES`."""
    chosen, size = [], 0
    for name in names:
        chosen.append(name)
        size += sum(model.tensors[name].nbytes for model in models)
        if size > _TRIAL_BYTES:
            break
    gram_table(models[0], models[1:], Alignment(tuple(chosen[:1])))  # the kernel is compiled or loaded now, not timed
    started = time.perf_counter()
    gram_table(models[0], models[1:], Alignment(tuple(chosen)))
    return (time.perf_counter() - started) / size
