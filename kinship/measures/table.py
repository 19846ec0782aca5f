"""`Table`: what one reading of the weights yields, whatever the metric; and how a metric reads it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.module_kinds import KindOf, module_kind
from kinship.errors import InvalidConfig
from kinship.measures.alignment import Alignment
from kinship.measures.matrix import KinshipMatrix
from kinship.measures.metrics import Metric, named
from kinship.measures.options import ComparisonOptions


class Table(Protocol):
    """Per-tensor statistics of task vectors, from which kinship follows without another look at the weights.

    ``rows[0]`` is the base's id, rows 1.. are the models' ids. names: of the tensors compared. ``left_out`` names every
    other tensor, with the reason. The methods raise `InvalidConfig` for a metric that does not follow from the table,
    and for an unknown ``by``.
    """

    @property
    def rows(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def left_out(self) -> dict[str, str]: ...  # noqa: D102

    def matrix(self, metric: str) -> KinshipMatrix:
        """Whole-model kinship."""
        ...

    def by_group(self, by: str, metric: str, kind_of: KindOf = module_kind) -> dict[str, KinshipMatrix]:
        """Kinship within each layer, module kind (as ``kind_of`` tells it) or tensor (``by``), by label."""
        ...

    def unrelated(self, metric: str) -> float | None:
        """About what unrelated models would have; None where that is not known."""
        ...

    def relative_norms(self) -> dict[str, float]:
        """Length of each task vector over that of the base; empty where lengths were not measured."""
        ...


Reader = Callable[
    [Checkpoint, Sequence[Checkpoint], Alignment, Metric, ComparisonOptions, Callable[[int], None]], Table
]
"""How a metric reads its table: (base, models, alignment, metric, options, progress).

``progress`` is told the number of bytes done since the last call, and nothing where no weight was read.
"""


def reader_of(metric: Metric) -> Reader:
    """How the weights are read for ``metric``."""
    function: Reader = named(metric.reader)
    return function


def require_own(metric: str, own: str) -> None:
    """Raise `InvalidConfig` where ``metric`` is not the one, ``own``, that a table was made for."""
    if metric != own:
        raise InvalidConfig(f"This comparison was made for {own}, not {metric}.", hint="Compare again for that.")
