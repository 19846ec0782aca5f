"""Kinship of models to each other, and what measuring it would take."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from kinship.errors import InvalidConfig
from service.answers.base import Answer, named

if TYPE_CHECKING:
    from kinship.measures.comparison import Comparison
    from kinship.measures.matrix import KinshipMatrix
    from kinship.measures.options import ComparisonOptions

Progress = Callable[[int, int], None]
MOST_INDENTED = 200  # models
Values = list[list[float | None]]


class Matrix(Answer):
    """Kinship of the task vectors of models; a task vector is a model's weights less those of its base."""

    schema_: Literal["kinship.matrix/1"] = named("kinship.matrix/1")
    metric: str
    """``pcc``, ``cosine``, ``euclidean``, ``sign`` or ``subspace``."""
    base: str
    """The reference of the base, as given."""
    ids: list[str]
    """The references of the models, as given."""
    values: Values
    """Square, row-major, in the order of ``ids``; null for a model whose task vector is zero."""
    mean: float | None
    """Over all pairs."""
    tensors: int
    """How many were compared."""
    compared: str
    """Identity of that set of tensors: entries of two matrices are comparable only where it is the same."""
    left_out: dict[str, str]
    """Tensors not compared, or compared in part, with the reason."""
    relative_norms: dict[str, float]
    """Length of each task vector over that of the base; empty where it was not measured."""
    unrelated: float | None
    """About what unrelated models would have; null where that is not known."""
    notes: list[str]
    """What to beware of."""
    share: float
    """Of the base's parameters, those compared."""
    by: str | None = None
    """What the groups are: ``layer``, ``module`` or ``tensor``."""
    groups: dict[str, Values] | None = None
    """``values`` within each group, by its label."""

    @classmethod
    def of(cls, comparison: "Comparison", metric: str, by: str | None = None) -> Self:
        """What ``comparison`` says by ``metric``, also apart within each layer, module or tensor (``by``)."""
        facts = comparison.matrix(metric).to_dict() | {
            "relative_norms": comparison.relative_norms(),
            "unrelated": comparison.unrelated(metric),
            "notes": list(comparison.notes),
            "share": comparison.share,
        }
        if by is not None:
            groups = comparison.by_group(by, metric)
            facts |= {"by": by, "groups": {label: group.to_dict()["values"] for label, group in groups.items()}}
        return cls.model_validate(facts)

    def to_json(self, *, indent: int | None = 2) -> str:
        """See `Answer.to_json`; a large matrix is one line, which takes a fifth of the time."""
        return super().to_json(indent=indent if len(self.ids) <= MOST_INDENTED else None)

    def matrix(self) -> "KinshipMatrix":
        """The same as the matrix that pictures and files are made of."""
        return self._matrix(self.values)

    def by_group(self) -> "dict[str, KinshipMatrix]":
        """The matrix of each group, by its label."""
        return {label: self._matrix(values) for label, values in (self.groups or {}).items()}

    def _matrix(self, values: Values) -> "KinshipMatrix":
        import numpy as np

        from kinship.measures.matrix import KinshipMatrix

        filled = np.array([[math.nan if value is None else value for value in row] for row in values])
        square = filled.reshape(len(self.ids), len(self.ids))
        return KinshipMatrix(
            self.metric, self.base, tuple(self.ids), square, self.tensors, self.left_out, self.compared
        )


class MatrixPlan(Answer):
    """What measuring a matrix would take, as headers tell and a short trial."""

    schema_: Literal["kinship.matrix-plan/1"] = named("kinship.matrix-plan/1")
    models: int
    """How many, without the base."""
    tensors: int
    """How many would be compared."""
    parameters: int
    """In the tensors compared, of one model."""
    bytes_to_download: int
    """Files of Hub models that are not in the cache yet."""
    bytes_to_read: int
    """Of all weights compared; 0 where the answer is known already."""
    peak_memory: int
    """Bytes, beside the program."""
    seconds: float
    """About, once the files are in memory."""
    weights_here: bool
    """False where weights were not, so that the trial read zeros in their place."""
    left_out: dict[str, str]
    """Tensors that would not be compared, with the reason."""


def measure_matrix(
    models: Sequence[str | Path],
    base: str | Path,
    metric: str = "pcc",
    options: "ComparisonOptions | None" = None,
    *,
    by: str | None = None,
    progress: Progress | None = None,
    remembered: Callable[[], None] = lambda: None,
) -> Matrix:
    """Kinship of ``models``, fine-tunes of ``base``: see `kinship.measures.comparison.compare`, also for its errors.

    ``by``: also apart within each ``layer``, ``module`` or ``tensor``; raises `InvalidConfig` for another one.
    ``remembered`` is called where it was known from an earlier comparison, and no weights were read.
    """
    from kinship.measures.comparison import compare
    from kinship.measures.options import DEFAULTS

    require_grouping(by)
    comparison = compare(models, base, metric, options or DEFAULTS, progress)
    if comparison.remembered:
        remembered()
    return Matrix.of(comparison, metric, by)


def warn_of_the_rest(comparison: "Comparison") -> None:
    """Issue a `KinshipWarning` of each thing to beware of: for answers that, unlike `Matrix`, have no place for it."""
    from kinship.errors import KinshipWarning

    notes = list(comparison.notes)
    if comparison.share < 1:
        notes.append(f"Only {100 * comparison.share:.2f} % of the parameters were compared; "
                     f"{left_out_told(comparison.left_out)}.")  # fmt: skip
    matrix = comparison.matrix()
    notes += [without_direction_told(name, matrix.metric) for name in matrix.without_direction()]
    for note in notes:
        warnings.warn(note, KinshipWarning, stacklevel=3)


def left_out_told(left_out: Mapping[str, str]) -> str:
    """How many tensors were not compared, with the reason of one.

    >>> left_out_told({"head": "tied to embed", "embed": "520 rows in b, 512 in a"})
    '2 tensors were left out, such as embed: 520 rows in b, 512 in a'
    """
    name = min(left_out, key=lambda name: left_out[name].startswith("tied to"))
    count = "1 tensor was left out" if len(left_out) == 1 else f"{len(left_out)} tensors were left out, such as"
    return f"{count}{':' if len(left_out) == 1 else ''} {name}: {left_out[name]}"


def without_direction_told(name: str, metric: str) -> str:
    """Of a model that equals the base."""
    return f"{name} equals the base: it has no direction, so no {metric} either."


def plan_matrix(
    models: Sequence[str | Path], base: str | Path, options: "ComparisonOptions | None" = None
) -> MatrixPlan:
    """What `measure_matrix` would read and take, from headers alone; raises what that would raise."""
    from kinship.measures.options import DEFAULTS
    from kinship.measures.preflight import preflight

    return MatrixPlan.model_validate(preflight(models, base, options or DEFAULTS).to_dict())


def models_of(models: Sequence[str], base: str | None) -> tuple[list[str], str]:
    """Models and base to compare: those given, or, of a recipe alone (a YAML file), the ones that it merges and its
    base.

    Raises `InvalidConfig` where no base is named, and what reading the recipe raises.
    """
    found = list(models)
    if len(models) == 1 and models[0].endswith((".yml", ".yaml")):
        from merging.mixture.recipe import MixtureRecipe, load_any_recipe

        recipe = load_any_recipe(Path(models[0]))
        if isinstance(recipe, MixtureRecipe) or isinstance(recipe.base_model, str):
            base = base or str(recipe.base_model)
        merged = recipe.references if isinstance(recipe, MixtureRecipe) else recipe.merged
        found = [model for model in merged if model != base]
        if not found:
            raise InvalidConfig(f"{models[0]} merges no model beside its base.", hint="Name the models to compare.")
    if base is None:
        from kinship.checkpoints.adapter_alone import is_adapter_alone

        alone = found and all(map(is_adapter_alone, found))
        rest = " Adapters without their base are compared by kinship tree --recover." if alone else ""
        raise InvalidConfig(
            "There is no base to compare to.", hint=f"Add --base: the model they were fine-tuned from.{rest}"
        )
    return found, base


def require_grouping(by: str | None) -> None:
    """Raise `InvalidConfig` where tensors cannot be grouped ``by`` that."""
    from kinship.checkpoints.tensor_names import GROUPINGS

    if by is not None and by not in GROUPINGS:
        raise InvalidConfig(f"Tensors cannot be grouped by {by!r}.", hint=f"Use one of: {', '.join(GROUPINGS)}.")
