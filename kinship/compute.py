"""From model references to kinship: open, align, read once, and answer any question from the Gram table."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinship.adapted import AdaptedCheckpoint, adapter_gram_table
from kinship.alignment import EVERYTHING, Alignment, Selection, align
from kinship.checkpoint import Checkpoint
from kinship.device import choose_device
from kinship.errors import InvalidConfig
from kinship.gram import GramTable, gram_table
from kinship.gram_memory import recall_table, remember_table
from kinship.groups import group_moments
from kinship.matrix import KinshipMatrix, require_unique
from kinship.metrics import cosine, get_metric, gram_kernel
from kinship.opening import open_checkpoint
from kinship.references import Fetch
from kinship.signs import SignTable, sign_table
from kinship.subspaces import RANK, OverlapTable, overlap_table
from kinship.vocabulary import VOCABULARIES, moved_tokens, share_vocabulary

# Above this cosine the Gram matrix leaves fewer than six digits of a distance, so it is measured directly.
CLOSE = 0.97


@dataclass(frozen=True)
class Comparison:
    """What one reading of the weights yields. ``left_out`` names every tensor not compared, with the reason.

    remembered: it was known from an earlier comparison, and no weight was read. notes: what to beware of. share: of the
    base's parameters, those in the tensors compared.
    """

    table: GramTable | SignTable | OverlapTable
    left_out: dict[str, str]
    remembered: bool = False
    notes: tuple[str, ...] = ()
    share: float = 1.0

    def matrix(self, metric: str = "pcc") -> KinshipMatrix:
        """Whole-model kinship. A comparison made for ``sign`` or ``subspace`` gives that metric alone."""
        if isinstance(self.table, GramTable):
            return KinshipMatrix.from_gram(self.table, metric, self.left_out)
        return self._own(metric, self.table).matrix()

    def by_group(self, by: str, metric: str = "pcc") -> dict[str, KinshipMatrix]:
        """Kinship within each layer, module kind or tensor (``by``), by label."""
        if not isinstance(self.table, GramTable):
            return self._own(metric, self.table).by_group(by)
        kernel = gram_kernel(metric)
        base, ids = self.table.rows[0], self.table.rows[1:]
        return {
            label: KinshipMatrix(metric, base, ids, kernel(*moments)[1:, 1:])
            for label, moments in group_moments(self.table, by).items()
        }

    def unrelated(self, metric: str = "pcc") -> float | None:
        """About what unrelated models would have; None where that is not known."""
        if isinstance(self.table, OverlapTable):
            chance = self.table.chance()
            return None if math.isnan(chance) else chance
        return get_metric(metric).unrelated

    @staticmethod
    def _own(metric: str, table: SignTable | OverlapTable) -> SignTable | OverlapTable:
        own = "sign" if isinstance(table, SignTable) else "subspace"
        if metric != own:
            raise InvalidConfig(f"This comparison was made for {own}, not {metric}.", hint="Compare again for that.")
        return table

    def relative_norms(self) -> dict[str, float]:
        """Length of each task vector over that of the base; empty where lengths were not measured."""
        if not isinstance(self.table, GramTable):
            return {}
        squares = np.diagonal(self.table.total()[0])
        if squares[0] == 0:
            return {}
        lengths = np.sqrt(squares / squares[0])
        return dict(zip(self.table.rows[1:], lengths[1:].tolist(), strict=True))


def compare(
    models: Sequence[str | Path],
    base: str | Path,
    metric: str = "pcc",
    progress: Callable[[int, int], None] | None = None,
    selection: Selection = EVERYTHING,
    *,
    vocab: str = "same",
    allow_pickle: bool = False,
    device: str = "cpu",
    rank: int = RANK,
) -> Comparison:
    """Read ``models``, fine-tunes of ``base``, once; see `kinship_matrix` for the arguments.

    With the metric ``euclidean``, pairs closer than `CLOSE` are read once more, for their difference itself.
    """
    get_metric(metric)
    device = choose_device(device)
    require_unique([str(model) for model in models])
    with ExitStack() as stack:
        everyone, alignment = open_aligned([base, *models], stack, selection, vocab, allow_pickle)
        opened_base, *opened = everyone
        total = sum(model.tensors[name].nbytes for model in [opened_base, *opened] for name in alignment.names)
        done, remembered = 0, False

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(min(done, total), total)

        table: GramTable | SignTable | OverlapTable
        adapters = [model for model in opened if isinstance(model, AdaptedCheckpoint)]
        if metric == "sign":
            table = sign_table(opened_base, opened, alignment, advance)
        elif metric == "subspace":
            table = overlap_table(opened_base, opened, alignment, rank, advance)
        elif len(adapters) == len(opened) and all(_same_files(model.base, opened_base) for model in adapters):
            table = adapter_gram_table(opened_base, adapters, alignment.names, exact=metric == "euclidean")
        else:
            table = _table(opened_base, opened, alignment, advance, device, exact=metric == "euclidean")
            remembered = not done
        if done < total:  # remembered, or tensors that the metric leaves out
            advance(total - done)
        notes = moved_tokens(everyone, alignment.names) if vocab == "same" else ()
    left_out = alignment.left_out if isinstance(table, GramTable) else table.left_out
    return Comparison(table, left_out, remembered, notes, _share(opened_base, table.names, left_out))


def kinship_matrix(
    models: Sequence[str | Path],
    base: str | Path,
    metric: str = "pcc",
    progress: Callable[[int, int], None] | None = None,
    selection: Selection = EVERYTHING,
    *,
    vocab: str = "same",
    allow_pickle: bool = False,
    device: str = "cpu",
    rank: int = RANK,
) -> KinshipMatrix:
    """Kinship of ``models``, fine-tunes of ``base``.

    Each is a local folder, a ``.safetensors`` file, a Hub id (``org/name@revision``), or such a base with an adapter
    (``base+adapter``). Adapters on ``base`` are compared from their factors; no weight is read. ``metric`` is ``pcc``,
    ``cosine``, ``euclidean``, ``sign`` (of the weights that both changed, the share changed in the same direction) or
    ``subspace`` (overlap of the ``rank`` leading singular directions of each matrix's change; takes tens of times as
    long). ``progress(done, total)`` is told bytes; ``selection`` picks tensors. With ``vocab="shared"`` embeddings and
    heads are compared by the tokens that all tokenizers share, else left out where their rows differ in number.
    ``allow_pickle`` lets local ``.bin``, ``.pt`` and ``.pth`` be read too. ``device`` computes the products: ``cpu``,
    ``cuda`` (untested for want of one), or ``auto``. Reads every file once, in a few MB; for ``subspace`` matrix by
    matrix. Raises the errors of `open_checkpoint`, `align`, `share_vocabulary` and `gram_table`.
    """
    comparison = compare(
        models, base, metric, progress, selection, vocab=vocab, allow_pickle=allow_pickle, device=device, rank=rank
    )
    return comparison.matrix(metric)


def open_aligned(
    references: Sequence[str | Path],
    stack: ExitStack,
    selection: Selection,
    vocab: str,
    allow_pickle: bool,
    fetch: Fetch | None = None,
) -> tuple[list[Checkpoint], Alignment]:
    """Open ``references`` (the first is the base) until ``stack`` ends, and align them.

    See `kinship_matrix` and, for ``fetch``, `open_checkpoint`.
    """
    if vocab not in VOCABULARIES:
        raise InvalidConfig(f"There is no vocab {vocab!r}.", hint=f"Use one of: {', '.join(VOCABULARIES)}.")
    opened = [
        stack.enter_context(open_checkpoint(model, allow_pickle=allow_pickle, fetch=fetch)) for model in references
    ]
    in_part: dict[str, str] = {}
    if vocab == "shared":
        opened, in_part = share_vocabulary(opened)
    alignment = align(opened[0], opened[1:], selection)
    in_part = {name: reason for name, reason in in_part.items() if name in alignment.names}
    return opened, Alignment(alignment.names, dict(sorted((alignment.left_out | in_part).items())))


def _table(
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
        _measure_close_pairs(table, models, alignment)
    remember_table(table, base, models, exact=exact)
    return table


def _measure_close_pairs(table: GramTable, models: Sequence[Checkpoint], alignment: Alignment) -> None:
    """Make ``table`` exact about the distances of close pairs, which as differences of large products lose digits.

    The inner product is set to what the measured distance implies: <a, b> = (|a|^2 + |b|^2 - |a - b|^2) / 2.
    """
    closeness = cosine(*table.total())[1:, 1:]
    for one, model in enumerate(models):
        close = [other for other in range(one) if closeness[one, other] > CLOSE]
        if close:
            differences = gram_table(model, [models[other] for other in close], alignment)
            for place, other in enumerate(close, 1):
                i, j = one + 1, other + 1
                products = table.grams[:, i, i] + table.grams[:, j, j] - differences.grams[:, place, place]
                table.grams[:, i, j] = table.grams[:, j, i] = products / 2


def _share(base: Checkpoint, names: Sequence[str], left_out: Mapping[str, str]) -> float:
    """The part of the base's parameters that are in the tensors ``names``; a tied head counts with its embedding."""
    counts = {name: entry.count for name, entry in base.tensors.items() if entry.dtype.is_floating_point}
    once = [count for name, count in counts.items() if not left_out.get(name, "").startswith("tied to")]
    return sum(counts[name] for name in names) / sum(once)


def _same_files(one: Checkpoint, other: Checkpoint) -> bool:
    return one.path.resolve() == other.path.resolve()
