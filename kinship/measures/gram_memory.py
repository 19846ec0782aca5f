"""Gram tables, remembered: asking again, for some of the models or for other metrics, reads no weights."""

import io
import json
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from kinship.cache import recall, remember
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.measures.alignment import Alignment
from kinship.measures.gram import GramTable, gram_table, measure_close_pairs

_KIND = "gram/1"


def recall_table(
    base: Checkpoint, models: Sequence[Checkpoint], names: Sequence[str], *, exact: bool
) -> GramTable | None:
    """The table of ``names`` of ``base`` and ``models``, from any remembered one that covers them.

    ``exact``: only one whose close pairs were measured from their differences.
    """
    prints = [model.fingerprint for model in models]
    if base.fingerprint is None or None in prints:
        return None
    asked = set(names)

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
    chosen = [places[name] for name in names]
    return GramTable(
        (base.id, *(model.id for model in models)),
        tuple(names),
        table.counts[chosen],
        table.sums[np.ix_(chosen, rows)],
        table.grams[np.ix_(chosen, rows, rows)],
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


def known_gram_table(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    alignment: Alignment,
    advance: Callable[[int], None],
    device: str,
    *,
    exact: bool,
) -> GramTable:
    """The Gram table as remembered, or read now; with the distances of close pairs measured where it is ``exact``."""
    known = recall_table(base, models, alignment.names, exact=exact)
    if known is not None:
        return known
    table = recall_table(base, models, alignment.names, exact=False) if exact else None
    if table is None:
        table = gram_table(base, models, alignment, advance, device)
    if exact:
        measure_close_pairs(table, models, alignment)
    remember_table(table, base, models, exact=exact)
    return table
