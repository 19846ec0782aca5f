"""Gram tables by the shortest way: from adapters' factors, remembered, or from the weights.

What is remembered answers for some of the models and for other metrics, too.
"""

import io
import json
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from kinship.cache import recall, remember
from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.measures.adapters import adapter_gram_table
from kinship.measures.alignment import Alignment
from kinship.measures.close_pairs import measure_close_pairs
from kinship.measures.gram import GramTable, gram_table
from kinship.measures.metrics import Metric
from kinship.measures.options import ComparisonOptions

_KIND = "gram/1"


def recall_table(
    base: Checkpoint, models: Sequence[Checkpoint], alignment: Alignment, *, exact: bool
) -> GramTable | None:
    """The table of the aligned tensors of ``base`` and ``models``, from any remembered one that covers them.

    ``exact``: only one whose close pairs were measured from their differences.
    """
    prints = [model.fingerprint for model in models]
    if base.fingerprint is None or None in prints:
        return None
    asked = set(alignment.names)

    def covers(detail: str) -> bool:
        known = json.loads(detail)
        if not set(prints) <= set(known["models"]):
            return False
        # Which pairs are close, and so were measured, depends on the tensors compared.
        return known["exact"] and asked == set(known["names"]) if exact else asked <= set(known["names"])

    found = recall(_KIND, base.fingerprint, covers)
    if found is None:
        return None
    table, known = GramTable.load(io.BytesIO(zlib.decompress(found[1]))), json.loads(found[0])["models"]
    rows = [0, *(1 + known.index(print) for print in prints)]
    places = {name: index for index, name in enumerate(table.names)}
    chosen = [places[name] for name in alignment.names]
    return GramTable(
        (base.id, *(model.id for model in models)),
        alignment.names,
        table.counts[chosen],
        table.sums[np.ix_(chosen, rows)],
        table.grams[np.ix_(chosen, rows, rows)],
        alignment.left_out,
    )


def remember_table(table: GramTable, base: Checkpoint, models: Sequence[Checkpoint], *, exact: bool) -> None:
    """Keep ``table``, if the files of ``base`` and ``models`` are as they were when they were opened."""
    prints = [model.fingerprint for model in models]
    if base.fingerprint is None or None in prints or any(model.changed() for model in [base, *models]):
        return
    file = io.BytesIO()
    table.save(file)
    detail = json.dumps({"models": prints, "exact": exact, "names": list(table.names)})
    remember(_KIND, base.fingerprint, zlib.compress(file.getvalue(), 1), detail)


def read_gram(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    alignment: Alignment,
    metric: Metric,
    options: ComparisonOptions,
    progress: Callable[[int], None],
) -> GramTable:
    """The Gram table; with distances of close pairs measured where the metric is one ``of_differences``.

    Adapters on ``base`` are compared from their factors. Raises what `gram_table` raises.
    """
    exact = metric.of_differences
    adapters = [model for model in models if isinstance(model, AdaptedCheckpoint)]
    if len(adapters) == len(models) and all(_same_files(model.base, base) for model in adapters):
        table = adapter_gram_table(base, adapters, alignment, exact=exact)
        progress(sum(model.tensors[name].nbytes for model in [base, *models] for name in alignment.names))
        return table
    known = recall_table(base, models, alignment, exact=exact)
    if known is not None:
        return known
    found = recall_table(base, models, alignment, exact=False) if exact else None
    if found is None:
        found = gram_table(base, models, alignment, progress, options.device)
    if exact:
        measure_close_pairs(found, models, alignment)
    remember_table(found, base, models, exact=exact)
    return found


def _same_files(one: Checkpoint, other: Checkpoint) -> bool:
    return one.path.resolve() == other.path.resolve()
