"""Span algebra: offspring as coefficients on their founders.

Linear, task-arithmetic and SLERP merges give each tensor of a child as a linear combination of its parents' tensors,
and so do the child's own children. A `Genome` is that table of coefficients on the base and the founders; its kinship
to every other follows from the founders' `GramTable` without reading a weight.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import about
from kinship.measures.alignment import Alignment, require_same_tensors
from kinship.measures.gram import GramTable, gram_table
from kinship.measures.matrix import KinshipMatrix
from merging.recipe.parameters import Layers, values_for, warn_of_filters
from merging.recipe.schema import Recipe
from merging.registry import MergeMethod

DIGITS = 15  # as many as float64 keeps of any decimal


@dataclass(frozen=True, eq=False)
class Genome:
    """A model as ``coefficients`` (T tensors, n+1) float64 on the raw tensors of [base, founder 1 .. founder n].

    Stored children that joined the founders (`merging.offspring.basis`) have columns after theirs. A genome from
    before has fewer columns, and is read as if it had the rest, zero.
    """

    coefficients: Float64

    def padded(self, columns: int) -> Self:
        """The same model on so many columns; raises `ValueError` where it has more."""
        missing = columns - self.coefficients.shape[1]
        return type(self)(np.pad(self.coefficients, ((0, 0), (0, missing)))) if missing else self

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
        return _transform(self._table.grams, self._gram_rows(genomes))

    def kinship(self, genomes: Mapping[str, Genome], metric: str = "pcc") -> KinshipMatrix:
        """Whole-model kinship of genomes by id: what `kinship_matrix` would measure on their weights.

        Exact up to rounding for weights in fp32; a child stored in bf16 differs by its own rounding.
        """
        founders = self._table
        rows = self._gram_rows([self.founder(self.ids[0]), *genomes.values()])
        rows[:, 1:, 0] -= 1.0  # a task vector is the model less the base
        table = GramTable(
            (self.ids[0], *genomes),
            self.names,
            founders.counts,
            (rows @ founders.sums[:, :, None])[:, :, 0],
            _transform(founders.grams, rows),
        )
        return table.matrix(metric)

    def merge(self, recipe: Recipe, parents: Mapping[str, Genome]) -> Genome:
        """The child that ``recipe`` makes; its model names are keys of ``parents``.

        Its coefficients are decimals of `DIGITS` digits, so that the recipe people read makes it to the bit. Raises
        `InvalidConfig` naming models and tensor where a required parameter has no value, or has a wrong one.
        """
        method = recipe.check().method
        (part,) = recipe.parts
        warn_of_filters(part.every_scope, self.names)
        models = [str(entry.model) for entry in part.merged(method)]
        rows = np.stack([self._coefficients(parents[model]) for model in models], axis=1)
        base = None if part.base is None else self._coefficients(parents[str(part.base)])
        child = np.zeros((len(self.names), len(self.ids)))
        for index, values in enumerate(self.values(recipe)):
            gram = self._table.grams[index] if method.needs_products else None
            with about(f"Tensor {self.names[index]!r} of {', '.join(models)}"):
                child[index] = child_row(method, values, rows[index], None if base is None else base[index], gram)
        return Genome(_decimal(child))

    def values(self, recipe: Recipe) -> Iterator[dict[str, Any]]:
        """The values of the method's parameters for each tensor, in order; raises as `merge`."""
        method = recipe.method
        (part,) = recipe.parts
        scopes = [(str(entry.model), (entry.parameters, *part.scopes)) for entry in part.merged(method)]
        return (values_for(method, scopes, name, self.layers.position(name)) for name in self.names)

    def holds(self, recipe: Recipe) -> bool:
        """Whether the child that ``recipe`` makes of members is one too: a linear combination, in every tensor."""
        return all(map(recipe.method.in_span, self.values(recipe)))

    def recipe_of(self, genome: Genome) -> Recipe:
        """A linear recipe on base and founders that makes ``genome`` in one step; mergekit reads it too."""
        models = [
            {"model": id, "parameters": {"weight": _setting(self.names, column)}}
            for id, column in zip(self.ids, self._coefficients(genome).T, strict=True)
            if column.any()
        ]
        return Recipe.model_validate(
            {"merge_method": "linear", "models": models, "parameters": {"normalize": False}}
        ).check()

    def _coefficients(self, genome: Genome) -> Float64:
        return genome.padded(len(self.ids)).coefficients

    def _gram_rows(self, genomes: Iterable[Genome]) -> Float64:
        """Coefficients (T, p, R) of p genomes on the rows of the table."""
        return np.stack([_on_gram_rows(self._coefficients(genome)) for genome in genomes], axis=1)

    @property
    def _table(self) -> GramTable:
        if self.table is None:
            raise ValueError("this span was opened without a Gram table")
        return self.table


def _decimal(coefficients: Float64) -> Float64:
    """The nearest decimals: 0.584 where sums and differences of decimals gave 0.5839999999999999.

    Numbers that have been one come back as they were. Cost: a microsecond for each number that is met first.
    """
    distinct, places = np.unique(coefficients, return_inverse=True)
    nearest = np.array([float(f"{number:.{DIGITS}g}") for number in distinct])
    return np.asarray(nearest[places].reshape(coefficients.shape))


def child_row(
    method: MergeMethod, values: Mapping[str, Any], parents: Float64, base: Float64 | None, gram: Float64 | None
) -> Float64:
    """One tensor of a child as coefficients (R,) on founders [t0, t1 .. tn] (R of them), from those of its parents.

    parents: (p, R). base: (R,), where the recipe has one. gram: (R, R) inner products of [t0, d1 .. dn], where the
    method asks for products. Cost: p R^2.
    """
    products = None
    if method.needs_products and gram is not None:
        rows = _on_gram_rows(parents - base if method.subtracts_base and base is not None else parents)
        products = _transform(gram, rows)
    combination = method.coefficients(products, values, has_base=base is not None)
    child = np.array(combination.models) @ parents
    if combination.base != 0.0 and base is not None:
        child += combination.base * base
    return np.asarray(child)


def _on_gram_rows(coefficients: Float64) -> Float64:
    """Coefficients on [t0, d1 .. dn] from those on [t0, t1 .. tn]: sum_i c_i t_i = (sum_i c_i) t0 + sum_i c_i d_i."""
    rows = coefficients.copy()
    rows[..., 0] = coefficients.sum(axis=-1)
    return rows


def _transform(grams: Float64, rows: Float64) -> Float64:
    """Gram matrices (..., p, p) of ``rows`` (..., p, R), given as coefficients on vectors whose Grams are (..., R, R).

    Products that are not known (NaN) make unknown what rests on them, and nothing else.
    """
    unknown = np.isnan(grams)
    if not unknown.any():
        products: Float64 = rows @ grams @ rows.swapaxes(-1, -2)
        return products
    products = rows @ np.where(unknown, 0.0, grams) @ rows.swapaxes(-1, -2)
    used = (rows != 0).astype(np.float64)
    products[used @ unknown @ used.swapaxes(-1, -2) > 0] = np.nan
    return products


def _setting(names: Iterable[str], values: Float64) -> float | list[dict[str, object]]:
    if (values == values[0]).all():
        return float(values[0])
    # Filters are substrings and the first match wins, so a longer name must come before any part of it.
    pairs = sorted(zip(names, values.tolist(), strict=True), key=lambda pair: (-len(pair[0]), pair[0]))
    return [{"filter": name, "value": value} for name, value in pairs]


def open_span(models: list[Checkpoint], *, with_products: bool) -> Span:
    """The span of ``models`` (the first is its base), after checking that they hold the same tensors.

    ``with_products`` reads all weights once for their Gram table.
    """
    require_same_tensors(models[0], models[1:])
    names = tuple(models[0].tensors)
    table = gram_table(models[0], models[1:], Alignment(names)) if with_products else None
    return Span(tuple(model.id for model in models), names, table)


def genome_identity(genome: Genome, span: Span, digests: Mapping[str, str]) -> str:
    """sha256 that is equal for genomes that materialise to the same bytes from the same founders.

    ``digests`` maps the ids of the span to their `Checkpoint.digest`; founders with no share do not count.
    """
    used = np.flatnonzero(genome.coefficients.any(axis=0)).tolist()
    founders = [digests[span.ids[index]] for index in used]
    sha = hashlib.sha256(json.dumps([founders, span.names]).encode())
    sha.update(Genome(genome.coefficients[:, used] + 0.0).to_bytes())  # -0.0 + 0.0 is 0.0
    return sha.hexdigest()


def child_seed(seed: int, id: str) -> int:
    """Seed of what is random in child ``id`` of a run with ``seed``: the same when the run is resumed.

    >>> child_seed(0, "1-2") == child_seed(0, "1-2"), child_seed(0, "1-2") == child_seed(0, "1-3")
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{id}".encode(), digest_size=7).digest(), "little")
