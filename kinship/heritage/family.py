"""A family that is looked into: its models, what is measured of them, and what has been found of each so far.

Finders take a `Family` and return a `Finding`. Models go by their places in the family. What a model may still be, and
whose parent, follows from what the finders before have found: see the properties of `Family`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.module_kinds import KindOf, ModuleKinds
from kinship.heritage.distances import Geometry, comparable, measure
from kinship.heritage.grids import grid_of
from kinship.heritage.sampling import Sample, sample
from kinship.heritage.stages import Stages

# Confidence in what holds number by number, and in what nearly does: set by hand below what simulated families showed
# (copies: all of 64 right).
EXACT, LIKELY = 0.99, 0.97


@dataclass(frozen=True)
class Relation:
    """How model ``child`` was made: its ``kind``, one of `kinship.trees.graph.KINDS`, and of whom.

    evidence: by parent, plain values; empty where no parent is here. confidence: probability that the parents are right
    (0-1). others: models that went into it as well and are no parents, as the base that task vectors were taken from.
    """

    child: int
    kind: str
    confidence: float
    evidence: Mapping[int, dict[str, Any]]
    others: tuple[int, ...] = ()

    @property
    def sources(self) -> tuple[int, ...]:
        """All models that went into the child."""
        return (*self.evidence, *self.others)


@dataclass(frozen=True)
class Finding:
    """What a finder tells: relations, ancestors that are not here as (their children, the reason), and what to say."""

    relations: Sequence[Relation] = ()
    latent: Sequence[tuple[tuple[int, ...], str]] = ()
    notes: Sequence[str] = ()


@dataclass
class Family:
    """``models`` of one descent; the first ``len(compared)`` can be compared, those ``aside`` (by place) cannot.

    compared: models cut to the rows that all of these have, of the tensors ``names``, which they share. aside: the
    reasons. base: place of the root, if known. Distances and samples are measured when they are first asked for; both
    raise `NonFiniteWeights`.
    """

    models: Sequence[Checkpoint]
    compared: Sequence[Checkpoint]
    names: tuple[str, ...]
    aside: Mapping[int, str] = field(default_factory=dict)
    base: int | None = None
    stages: Stages = field(default_factory=Stages)
    found: list[Relation] = field(default_factory=list)

    @classmethod
    def of(cls, models: Sequence[Checkpoint], base: int | None, stages: Stages) -> "Family":
        """Of related ``models``, ``base`` among them; see `comparable`."""
        cut, names, left_out = comparable(models)
        kept = [place for place in range(len(models)) if place not in left_out]
        return cls(
            [models[place] for place in (*kept, *left_out)],
            [cut[place] for place in kept],
            names,
            dict(enumerate(left_out.values(), len(kept))),
            kept.index(base) if base in kept else None,
            stages,
        )

    @property
    def comparable(self) -> bool:
        """Whether two models at least share weights."""
        return len(self.compared) > 1 and bool(self.names)

    def id(self, place: int) -> str:
        """The reference of a model as given."""
        return self.models[place].id

    def token_rows(self, place: int) -> int:
        """Rows of a model in the tensors that have more of them in some models: embedding and head together."""
        tensors = self.models[place].tensors
        return sum(tensors[name].shape[0] for name in self._resized if name in tensors)

    @cached_property
    def _resized(self) -> list[str]:
        comparable = self.models[: len(self.compared)]
        sizes = {
            name: {model.tensors[name].count for model in comparable if name in model.tensors} for name in self.names
        }
        return [name for name, found in sizes.items() if len(found) > 1]

    @cached_property
    def kind_of(self) -> KindOf:
        """The kind of module that a tensor is of, by its name."""
        return ModuleKinds(self.models[0])

    @cached_property
    def geometry(self) -> Geometry:
        """Distances of the models compared, from one pass over their weights."""
        reading = self.stages.reading("Measuring distances", self.compared, self.names)
        return measure(self.compared, self.names, reading)

    @cached_property
    def samples(self) -> list[Sample]:
        """Some of the weights of the models compared."""
        return sample(self.compared, self.stages)

    @cached_property
    def grids(self) -> list[str]:
        """By model, the number format that its weights lie on."""
        return [grid_of(self.samples, model) for model in range(len(self.compared))]

    @cached_property
    def equals(self) -> list[list[int]]:
        """Groups of models that hold the same numbers in all tensors compared, each model in one.

        First comes the base, or whichever has the fewest rows of tokens.
        """
        same = (self.geometry.apart == 0).all(0)
        groups: list[list[int]] = []
        for model in range(len(same)):
            home = next((group for group in groups if same[model, group[0]]), None)
            home.append(model) if home is not None else groups.append([model])
        for group in groups:
            first = min(group, key=lambda model: (model != self.base, self.token_rows(model), model))
            group.sort(key=lambda model: (model != first, model))
        return groups

    @property
    def distinct(self) -> list[int]:
        """One of each group of equal models."""
        return [group[0] for group in self.equals]

    @property
    def plain(self) -> list[int]:
        """Of the distinct ones, those that are no rounding of another: what merges are made of, and fine-tunes."""
        return self._without("cast", "quantized")

    @property
    def parents(self) -> list[int]:
        """Of the distinct ones, those that may be trained on: not integers."""
        return self._without("quantized")

    @property
    def unmixed(self) -> list[int]:
        """Of `parents`, those that are no merges: what may lie between two others by descent."""
        return self._without("quantized", "merge")

    @property
    def unexplained(self) -> list[int]:
        """Of the distinct ones but the base, those of which nothing has been found."""
        known = {self.base, *(one.child for one in self.found)}
        return [model for model in self.distinct if model not in known]

    @property
    def certain(self) -> list[tuple[int, int]]:
        """(source, child) of all that has been found."""
        return [(source, one.child) for one in self.found for source in one.sources]

    @property
    def merges(self) -> list[Relation]:
        """What has been found of merges."""
        return [one for one in self.found if one.kind == "merge"]

    @property
    def twins(self) -> list[set[int]]:
        """By model, those that are it, or that it is, but for rounding to a narrower format."""
        found: list[set[int]] = [set() for _ in self.compared]
        for one in self.found:
            if one.kind == "cast":
                for parent in one.evidence:
                    found[parent].add(one.child)
                    found[one.child].add(parent)
        return found

    def _without(self, *kinds: str) -> list[int]:
        children = {one.child for one in self.found if one.kind in kinds}
        return [model for model in self.distinct if model not in children]


Finder = Callable[[Family], Finding]
"""Looks for one way in which models are made; what it finds is in ``found`` of the family for those that come after."""
