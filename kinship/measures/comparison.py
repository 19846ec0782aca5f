"""From model references to kinship: open, align, read once, and answer any question from the table."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kinship.checkpoints.adapted import foreign_adapters
from kinship.checkpoints.checkpoint import Checkpoint, unchanged
from kinship.checkpoints.module_kinds import KindOf, ModuleKinds, module_kind
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from kinship.checkpoints.references import Fetch, listed
from kinship.checkpoints.shared_vocabulary import moved_tokens, share_vocabulary
from kinship.checkpoints.unified import unified
from kinship.device import choose_device
from kinship.measures.alignment import Alignment, align
from kinship.measures.matrix import KinshipMatrix, require_unique
from kinship.measures.metrics import get_metric
from kinship.measures.options import DEFAULTS
from kinship.measures.options import ComparisonOptions as ComparisonOptions
from kinship.measures.table import Table, reader_of

# Of formats that models are rounded to, the unit in the last place of 1.
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Comparison:
    """What one reading of the weights for ``metric`` yields.

    ``table`` answers for every metric that follows from it. remembered: it was known from an earlier comparison, and no
    weight was read. notes: what to beware of. share: of the base's parameters, those in the tensors compared. kind_of:
    the kind of module that a tensor is of.
    """

    metric: str
    table: Table
    remembered: bool = False
    notes: tuple[str, ...] = ()
    share: float = 1.0
    kind_of: KindOf = module_kind

    @property
    def left_out(self) -> dict[str, str]:
        """Every tensor not compared, with the reason."""
        return self.table.left_out

    def matrix(self, metric: str | None = None) -> KinshipMatrix:
        """Whole-model kinship, by the metric compared for or another that the table answers for.

        Raises `InvalidConfig` for a metric that does not follow from the table.
        """
        return self.table.matrix(metric or self.metric)

    def by_group(self, by: str, metric: str | None = None) -> dict[str, KinshipMatrix]:
        """Kinship within each layer, module kind or tensor (``by``), by label. Raises as `matrix` does."""
        return self.table.by_group(by, metric or self.metric, self.kind_of)

    def unrelated(self, metric: str | None = None) -> float | None:
        """About what unrelated models would have; None where that is not known."""
        return self.table.unrelated(metric or self.metric)

    def relative_norms(self) -> dict[str, float]:
        """Length of each task vector over that of the base; empty where lengths were not measured."""
        return self.table.relative_norms()


def compare(
    models: Iterable[str | Path],
    base: str | Path,
    metric: str = "pcc",
    options: ComparisonOptions = DEFAULTS,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Read ``models``, fine-tunes of ``base``, once; see `kinship_matrix` for the arguments and what is raised.

    For a metric of differences (``euclidean``), pairs that are close are read once more, for their difference itself.
    """
    spec = get_metric(metric)
    options = options.model_copy(update={"device": choose_device(options.device)})
    models = listed(models)
    require_unique([str(model) for model in models])
    with ExitStack() as stack:
        everyone, alignment = open_aligned([base, *models], stack, options)
        stack.enter_context(unchanged(everyone))
        opened_base, *opened = everyone
        total = sum(model.tensors[name].nbytes for model in [opened_base, *opened] for name in alignment.names)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(min(done, total), total)

        table = reader_of(spec)(opened_base, opened, alignment, spec, options, advance)
        remembered = not done
        if done < total:  # remembered, or tensors that the metric leaves out
            advance(total - done)
        notes = (*foreign_adapters(everyone), *_rounded_off(everyone, table.relative_norms()))
        if options.vocab == "same":
            notes += moved_tokens(everyone, alignment.names) + _resized(alignment)
    share = _share(opened_base, table.names, table.left_out)
    return Comparison(metric, table, remembered, notes, share, ModuleKinds(opened_base))


def kinship_matrix(
    models: Iterable[str | Path],
    base: str | Path,
    metric: str = "pcc",
    options: ComparisonOptions = DEFAULTS,
    progress: Callable[[int, int], None] | None = None,
) -> KinshipMatrix:
    """Kinship of ``models``, fine-tunes of ``base``.

    Each is a local folder, a ``.safetensors`` file, a Hub id (``org/name@revision``), or such a base with an adapter
    (``base+adapter``). Adapters on ``base`` are compared from their factors; no weight is read. ``metric`` is ``pcc``,
    ``cosine``, ``euclidean``, ``sign`` (of the weights that both changed, the share changed in the same direction) or
    ``subspace`` (overlap of the leading singular directions of each matrix's change; takes tens of times as long).
    ``progress(done, total)`` is told bytes. Reads every file once, in a few MB; for ``subspace`` matrix by matrix.
    Raises `InvalidConfig` for an unknown metric, a model listed twice or no list, and the errors of `open_checkpoint`,
    `align`, `share_vocabulary` and the metric's pass over the weights, such as `NonFiniteWeights`.
    """
    return compare(models, base, metric, options, progress).matrix()


def open_aligned(
    references: Sequence[str | Path], stack: ExitStack, options: ComparisonOptions, fetch: Fetch | None = None
) -> tuple[list[Checkpoint], Alignment]:
    """Open ``references`` (the first is the base) until ``stack`` ends, and align them.

    See `kinship_matrix` and, for ``fetch``, `open_checkpoint`.
    """
    opened = [
        stack.enter_context(open_checkpoint(model, allow_pickle=options.allow_pickle, fetch=fetch))
        for model in references
    ]
    opened, ignored = unified(opened)
    opened = with_own_heads(opened)
    in_part: dict[str, str] = {}
    if options.vocab == "shared":
        opened, in_part = share_vocabulary(opened)
    alignment = align(opened[0], opened[1:], options.selection)
    in_part = {name: reason for name, reason in in_part.items() if name in alignment.names}
    left_out = dict(sorted((ignored | alignment.left_out | in_part).items()))
    return opened, Alignment(alignment.names, left_out, alignment.resized)


def _resized(alignment: Alignment) -> tuple[str, ...]:
    """What to say of vocabularies that were left out for their sizes."""
    if not alignment.resized:
        return ()
    listed = " and ".join(alignment.resized[:2]) + (" and others" if alignment.resized[2:] else "")
    return (f"{listed}: left out, since the models have different numbers of rows (tokens); --vocab shared compares "
            "the rows of the tokens that all have.",)  # fmt: skip


def _rounded_off(models: Sequence[Checkpoint], lengths: Mapping[str, float]) -> Iterator[str]:
    """What to say of copies of the base (the first of ``models``) in 16 bits: their task vectors are rounding errors.

    lengths: of task vectors over that of the base, by id. Errors are even within a unit in the last place.
    """
    base, *others = models
    for one in others:
        grid = max(_formats(one), key=lambda name: EPSILON.get(name, 0.0), default="")
        most, length = EPSILON.get(grid, 0.0) / math.sqrt(12), lengths.get(one.id, 0.0)
        if 0 < length <= most and grid not in _formats(base):
            yield (
                f"{one.id} is no farther from the base than rounding to {grid} takes it ({100 * length:.2g} % of its "
                "length): what it may have learned is lost in that, and its kinship says nothing."
            )


def _formats(model: Checkpoint) -> set[str]:
    return {entry.dtype.name for entry in model.tensors.values() if entry.dtype.is_floating_point}


def _share(base: Checkpoint, names: Sequence[str], left_out: Mapping[str, str]) -> float:
    """The part of the base's parameters that are in the tensors ``names``; a tied head counts with its embedding."""
    counts = {name: entry.count for name, entry in base.tensors.items() if entry.dtype.is_floating_point}
    once = [count for name, count in counts.items() if not left_out.get(name, "").startswith("tied to")]
    return sum(counts[name] for name in names) / sum(once)
