"""Which pairs of models to merge, by kinship."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from service.answers.base import Answer, Part, named
from service.answers.matrix import warn_of_the_rest

if TYPE_CHECKING:
    from kinship.measures.matrix import KinshipMatrix
    from kinship.measures.options import ComparisonOptions


class PairAdvice(Part):
    """Two models, and what merging them may bring."""

    pair: tuple[str, str]
    """The references of the two."""
    kinship: float
    """By the metric asked for."""
    relation: str
    """What such models are called: ``nearly unrelated``, ``distant``, ``related`` or ``alike``."""
    reason: str
    """Why the pair has its place."""


class Advice(Answer):
    """Pairs to merge, by kinship."""

    schema_: Literal["kinship.advice/1"] = named("kinship.advice/1")
    metric: str
    """``pcc`` or ``cosine``."""
    base: str
    """The reference of the base, as given."""
    pairs: list[PairAdvice]
    """All of them, the least related first."""
    evidence: str
    """What the order is worth."""

    @classmethod
    def of(cls, matrix: "KinshipMatrix") -> Self:
        """The advice that follows from ``matrix``. Raises `InvalidConfig` for a metric other than pcc and cosine."""
        from kinship.measures.advice import EVIDENCE, advise

        pairs = [PairAdvice.model_validate(vars(advice)) for advice in advise(matrix)]
        return cls(metric=matrix.metric, base=matrix.base, pairs=pairs, evidence=EVIDENCE)


def advise_pairs(
    models: Sequence[str | Path],
    base: str | Path,
    metric: str = "pcc",
    options: "ComparisonOptions | None" = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Advice:
    """Every pair of ``models``, fine-tunes of ``base``, the least related first.

    Warns of tensors that were not compared.
    Raises what `kinship.measures.comparison.compare` raises, and `InvalidConfig` for a metric but pcc and cosine.
    """
    from kinship.measures.comparison import compare
    from kinship.measures.options import DEFAULTS

    found = compare(models, base, metric, options or DEFAULTS, progress)
    warn_of_the_rest(found)
    return Advice.of(found.matrix())
