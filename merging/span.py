"""Span algebra: offspring as coefficients on their founders.

Linear, task-arithmetic and SLERP merges give each tensor of a child as a linear combination of its parents' tensors,
and so do the child's own children. A `Genome` is that table of coefficients on the base and the founders; its kinship
to every other follows from the founders' `GramTable` without reading a weight.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from kinship.errors import InvalidConfig
from kinship.gram import Float64, GramTable
from kinship.matrix import KinshipMatrix
from merging.parameters import Layers, resolve
from merging.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Genome:
    """A model as ``coefficients`` (T tensors, n+1) float64 on the raw tensors of [base, founder 1 .. founder n]."""

    coefficients: Float64

    def to_bytes(self) -> bytes:
        """Little-endian float64, row-major: the same on every machine."""
        return self.coefficients.astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, tensors: int) -> Self:
        """Read what `to_bytes` wrote for a table of ``tensors`` rows."""
        return cls(np.frombuffer(data, dtype="<f8").reshape(tensors, -1).astype(np.float64))


@dataclass(frozen=True)
class Span:
    """All models that are tensor-wise linear combinations of a base and its founders.

    ids: (n+1) [base, founders ...]. names: T tensor names, sorted. table: the founders' Gram over the same rows; None
    when nothing asks for inner products.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    table: GramTable | None = None

    def __post_init__(self) -> None:
        if self.table is not None and (self.table.rows, self.table.names) != (self.ids, self.names):
            raise ValueError("the Gram table is not over this span's models and tensors")

    @classmethod
    def over(cls, table: GramTable) -> Self:
        """The span of the models and tensors that ``table`` is about."""
        return cls(table.rows, table.names, table)

    @cached_property
    def layers(self) -> Layers:
        """The layer stack the tensor names speak of."""
        return Layers.of(self.names)

    def founder(self, id: str) -> Genome:
        """The genome of a founder or the base."""
        coefficients = np.zeros((len(self.names), len(self.ids)))
        coefficients[:, self.ids.index(id)] = 1.0
        return Genome(coefficients)

    def products(self, genomes: Sequence[Genome]) -> Float64:
        """Inner products (T, p, p) of the raw tensors of p genomes."""
        rows = np.stack([_on_gram_rows(genome) for genome in genomes], axis=1)
        return _transform(self._table.grams, rows)

    def kinship(self, genomes: Mapping[str, Genome], metric: str = "pcc") -> KinshipMatrix:
        """Whole-model kinship of genomes by id: what `kinship_matrix` would measure on their weights.

        Exact up to rounding for weights in fp32; a child stored in bf16 differs by its own rounding.
        """
        founders = self._table
        rows = np.stack([_on_gram_rows(genome) for genome in [self.founder(self.ids[0]), *genomes.values()]], axis=1)
        rows[:, 1:, 0] -= 1.0  # a task vector is the model less the base
        table = GramTable(
            (self.ids[0], *genomes),
            self.names,
            founders.counts,
            (rows @ founders.sums[:, :, None])[:, :, 0],
            _transform(founders.grams, rows),
        )
        return KinshipMatrix.from_gram(table, metric)

    def merge(self, recipe: Recipe, parents: Mapping[str, Genome]) -> Genome:
        """The child that ``recipe`` makes; its model names are keys of ``parents``.

        Raises `InvalidConfig` naming model and tensor where a required parameter has no value.
        """
        method = recipe.check().method
        inputs = list(recipe.models)
        if method.base_is_input:
            inputs.sort(key=lambda entry: entry.model != recipe.base_model)
        genomes = [parents[entry.model] for entry in inputs]
        products = self.products(genomes) if method.needs_products else [None] * len(self.names)
        child = np.zeros((len(self.names), len(self.ids)))
        for index, name in enumerate(self.names):
            position = self.layers.position(name)
            values: dict[str, object] = {}
            for parameter in method.parameters:
                scopes = [[entry.parameters, recipe.parameters] for entry in inputs]
                found = [resolve(pair, parameter.name, name, position) for pair in scopes]
                found = [parameter.default if value is None else value for value in found]
                if None in found:
                    raise InvalidConfig(
                        f"The {method.name} merge gives {inputs[found.index(None)].model} no {parameter.name!r} "
                        f"for tensor {name!r}.",
                        hint=f"Give {parameter.name}, or a last filter that matches every tensor.",
                    )
                values[parameter.name] = found if parameter.per_model else found[0]
            combination = method.coefficients(products[index], values, has_base=recipe.base_model is not None)
            if combination.base != 0.0:
                child[index] += combination.base * parents[str(recipe.base_model)].coefficients[index]
            for factor, genome in zip(combination.models, genomes, strict=True):
                child[index] += factor * genome.coefficients[index]
        return Genome(child)

    def recipe_of(self, genome: Genome) -> Recipe:
        """A linear recipe on base and founders that makes ``genome`` in one step; mergekit reads it too."""
        columns = [index for index in range(len(self.ids)) if genome.coefficients[:, index].any()]
        models = [
            {"model": self.ids[index], "parameters": {"weight": _setting(self.names, genome.coefficients[:, index])}}
            for index in columns
        ]
        return Recipe.model_validate(
            {"merge_method": "linear", "models": models, "parameters": {"normalize": False}}
        ).check()

    @property
    def _table(self) -> GramTable:
        if self.table is None:
            raise ValueError("this span was opened without a Gram table")
        return self.table


def _on_gram_rows(genome: Genome) -> Float64:
    """Coefficients on [t0, d1 .. dn] from those on [t0, t1 .. tn]: sum_i c_i t_i = (sum_i c_i) t0 + sum_i c_i d_i."""
    rows = genome.coefficients.copy()
    rows[:, 0] = genome.coefficients.sum(axis=1)
    return rows


def _transform(grams: Float64, rows: Float64) -> Float64:
    """Gram matrices (T, p, p) of ``rows`` (T, p, R), given as coefficients on vectors whose Grams are (T, R, R)."""
    products: Float64 = rows @ grams @ rows.transpose(0, 2, 1)
    return products


def _setting(names: Iterable[str], values: Float64) -> float | list[dict[str, object]]:
    if (values == values[0]).all():
        return float(values[0])
    # Filters are substrings and the first match wins, so a longer name must come before any part of it.
    pairs = sorted(zip(names, values.tolist(), strict=True), key=lambda pair: (-len(pair[0]), pair[0]))
    return [{"filter": name, "value": value} for name, value in pairs]
