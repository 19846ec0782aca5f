"""An index of sketches: its models, and relatives found in it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from kinship.errors import InvalidConfig
from service.answers.base import Answer, Part, named

if TYPE_CHECKING:
    from kinship.sketches.sketch import Sketch

Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Given a model, yields what is told of (bytes read, bytes in all)."""


class IndexedModels(Answer):
    """The models of an index."""

    schema_: Literal["kinship.index/1"] = named("kinship.index/1")
    index: str
    """Its file."""
    models: list[str]
    """Their references, as they were added."""


class Relative(Part):
    """A model of the index that is related to the one asked about; all but ``shared`` are estimates."""

    id: str
    """Its reference, as it was added."""
    related: bool
    """True."""
    correlation: float
    """Of the weights."""
    z: float
    """How many standard errors their inner product is from zero."""
    distance: float
    """Euclidean, in units of the geometric mean of the two norms."""
    shared: float
    """Share of the elements compared."""


class Relatives(Answer):
    """Who in an index is related to a model."""

    schema_: Literal["kinship.relatives/1"] = named("kinship.relatives/1")
    model: str
    """Its reference, as given."""
    compared: int
    """How many models have tensors of the same names and sizes."""
    relatives: list[Relative]
    """The nearest first."""

    def nearest(self, most: int) -> Self:
        """The same with at most so many relatives."""
        return self.model_copy(update={"relatives": self.relatives[:most]})


def list_index(index: Path) -> IndexedModels:
    """The models of ``index``; raises the errors of `SketchIndex`."""
    from kinship.sketches.index import SketchIndex

    return IndexedModels(index=str(index), models=SketchIndex(index).ids)


def add_models(
    index: Path,
    models: Sequence[str],
    *,
    allow_pickle: bool = False,
    force: bool = False,
    watch: Watch = lambda model: nullcontext(lambda done, total: None),
    added: Callable[[str], None] = lambda model: None,
) -> IndexedModels:
    """Sketch ``models`` and keep each sketch, under its reference, as soon as it is made; ``added`` is told of it.

    Raises `InvalidConfig` for a model given twice, or there already and not ``force``, and what opening it raises.
    """
    from kinship.sketches.index import SketchIndex

    if len(set(models)) < len(models):
        raise InvalidConfig("A model is given twice.", hint="Name each once.")
    kept = SketchIndex(index)
    for model in models:
        made, state = _sketched(model, allow_pickle=allow_pickle, watch=watch)
        kept.add(model, made, state=state, force=force)
        added(model)
    return IndexedModels(index=str(index), models=kept.ids)


def remove_models(index: Path, models: Sequence[str]) -> IndexedModels:
    """Forget ``models``; raises `InvalidConfig` for one that is not there."""
    from kinship.sketches.index import SketchIndex

    kept = SketchIndex(index)
    for model in models:
        kept.remove(model)
    return list_index(index)


def find_relatives(
    index: Path,
    model: str,
    *,
    allow_pickle: bool = False,
    watch: Watch = lambda model: nullcontext(lambda done, total: None),
) -> Relatives:
    """All in ``index`` that ``model`` is related to, the nearest first."""
    from kinship.sketches.index import SketchIndex

    kept = SketchIndex(index)
    everyone = kept.query(_sketched(model, allow_pickle=allow_pickle, watch=watch)[0])
    found = [Relative.model_validate(relative.to_dict()) for relative in everyone if relative.related]
    return Relatives(model=model, compared=len(everyone), relatives=found)


def _sketched(model: str, *, allow_pickle: bool, watch: Watch) -> "tuple[Sketch, str | None]":
    """The sketch, and the state of the files that it was made from."""
    from kinship.checkpoints.checkpoint import unchanged
    from kinship.checkpoints.opening import open_checkpoint
    from kinship.sketches.sketch import sketch

    with open_checkpoint(model, allow_pickle=allow_pickle) as checkpoint, unchanged([checkpoint]):
        total, done = sum(entry.nbytes for entry in checkpoint.tensors.values()), 0
        with watch(model) as progress:

            def report(count: int) -> None:
                nonlocal done
                done += count
                progress(done, total)

            state = checkpoint.fingerprint
            return sketch(checkpoint, report), state
