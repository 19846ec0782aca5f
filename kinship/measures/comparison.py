"""From model references to kinship: open, align, read once, and answer any question from the Gram table."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from kinship.checkpoints.references import Fetch
from kinship.checkpoints.shared_vocabulary import VOCABULARIES, moved_tokens, share_vocabulary
from kinship.device import choose_device
from kinship.errors import InvalidConfig
from kinship.measures.adapters import adapter_gram_table
from kinship.measures.alignment import EVERYTHING, Alignment, Selection, align
from kinship.measures.gram import GramTable, group_moments
from kinship.measures.gram_memory import known_gram_table
from kinship.measures.matrix import KinshipMatrix, require_unique
from kinship.measures.metrics import get_metric, gram_kernel
from kinship.measures.signs import SignTable, sign_table
from kinship.measures.subspaces import RANK, OverlapTable, overlap_table


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
            table = known_gram_table(opened_base, opened, alignment, advance, device, exact=metric == "euclidean")
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
    opened = with_own_heads(opened)
    in_part: dict[str, str] = {}
    if vocab == "shared":
        opened, in_part = share_vocabulary(opened)
    alignment = align(opened[0], opened[1:], selection)
    in_part = {name: reason for name, reason in in_part.items() if name in alignment.names}
    return opened, Alignment(alignment.names, dict(sorted((alignment.left_out | in_part).items())))


def _share(base: Checkpoint, names: Sequence[str], left_out: Mapping[str, str]) -> float:
    """The part of the base's parameters that are in the tensors ``names``; a tied head counts with its embedding."""
    counts = {name: entry.count for name, entry in base.tensors.items() if entry.dtype.is_floating_point}
    once = [count for name, count in counts.items() if not left_out.get(name, "").startswith("tied to")]
    return sum(counts[name] for name in names) / sum(once)


def _same_files(one: Checkpoint, other: Checkpoint) -> bool:
    return one.path.resolve() == other.path.resolve()
