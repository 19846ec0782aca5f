"""Kinship as a hierarchy of clusters."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from kinship.errors import InvalidConfig
from service.answers.base import Answer, named
from service.answers.matrix import warn_of_the_rest

if TYPE_CHECKING:
    from kinship.measures.matrix import KinshipMatrix
    from kinship.measures.options import ComparisonOptions

Joining = Literal["upgma", "nj"]
"""Average linkage, or neighbour joining."""


class Dendrogram(Answer):
    """A tree of models by their kinship."""

    schema_: Literal["kinship.dendrogram/1"] = named("kinship.dendrogram/1")
    ids: list[str]
    """The references of the models, as given."""
    metric: str
    """By which kinship was measured."""
    linkage: list[tuple[float, float, float, float]]
    """SciPy's format, rows of (cluster, cluster, height, size); average linkage."""
    newick: str
    """The tree as joined: by average linkage, or by neighbour joining."""

    @classmethod
    def of(cls, matrix: "KinshipMatrix", joining: Joining = "upgma") -> Self:
        """The tree of the models of ``matrix``. Raises `InvalidConfig` for fewer than two."""
        from kinship.trees.dendrogram import cluster, distances, neighbour_joining, newick

        linkage = cluster(matrix)
        text = newick(linkage, matrix.ids) if joining == "upgma" else neighbour_joining(distances(matrix), matrix.ids)
        return cls(ids=list(matrix.ids), metric=matrix.metric, linkage=linkage.tolist(), newick=text.strip())


def join_models(
    models: Sequence[str | Path],
    base: str | Path,
    metric: str = "pcc",
    options: "ComparisonOptions | None" = None,
    *,
    joining: Joining = "upgma",
    progress: Callable[[int, int], None] | None = None,
) -> Dendrogram:
    """The dendrogram of ``models``, fine-tunes of ``base``.

    Warns of tensors that were not compared.
    Raises `InvalidConfig` for fewer than two models, and what `kinship.measures.comparison.compare` raises.
    """
    from kinship.measures.comparison import compare
    from kinship.measures.options import DEFAULTS

    if len(models) < 2:
        raise InvalidConfig("A dendrogram needs at least two models.", hint="Give more models.")
    found = compare(models, base, metric, options or DEFAULTS, progress)
    warn_of_the_rest(found)
    return Dendrogram.of(found.matrix(), joining)
