"""Distances within a family, tensor by tensor, from one pass over the weights: what descent is read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kinship.checkpoint import Checkpoint
from kinship.gram import Float64
from kinship.heritage.gaps import pairwise_gaps
from kinship.heritage.sampling import width_of
from kinship.tied import has_token_rows
from kinship.vocabulary import SelectedRows


@dataclass(frozen=True)
class Geometry:
    """n models, T tensors, float64. ``squares`` (T, n): squared norms. ``apart`` (T, n, n): squared distances.

    A distance is zero only where two models hold the same numbers. ``counts`` (T,) numbers of elements.
    """

    names: tuple[str, ...]
    counts: Float64
    squares: Float64
    apart: Float64

    @cached_property
    def total(self) -> Float64:
        """Squared distances (n, n) of whole models."""
        return np.asarray(self.apart.sum(0))

    def products(self, origin: int) -> Float64:
        """Inner products (T, n, n) of the models' differences from ``origin``."""
        away = self.apart[:, origin]
        return (away[:, :, None] + away[:, None, :] - self.apart) / 2


def comparable(models: Sequence[Checkpoint]) -> tuple[list[Checkpoint], tuple[str, ...], dict[int, str]]:
    """``models`` cut to the rows that all have, the tensors that all share, and who shares too little, with the reason.

    A tensor stored flat is compared by its number of elements. A model that lacks over a tenth of the weights that most
    have is left out of the sharing; it is not compared.
    """
    keys = [{name for name, entry in model.tensors.items() if entry.dtype.is_floating_point} for model in models]
    frequent = {name for name in set().union(*keys) if sum(name in key for key in keys) * 2 > len(models)}
    largest = {name: max(model.tensors[name].count for model in models if name in model.tensors) for name in frequent}
    whole = sum(largest.values())
    left_out: dict[int, str] = {}
    for index, key in enumerate(keys):
        missing = sum(count for name, count in largest.items() if name not in key)
        more = sum(models[index].tensors[name].count for name in key - frequent)
        if missing > whole / 10 or more > whole / 5:
            left_out[index] = (
                f"lacks {missing / whole:.0%} of the weights that others have, has {more / whole:.0%} more"
            )
    kept = [index for index in range(len(models)) if index not in left_out]
    names, cuts = [], {}
    for name in sorted(set.intersection(*(keys[index] for index in kept))):
        entries = [models[index].tensors[name] for index in kept]
        sizes = {entry.count for entry in entries}
        widths = {width_of(entry.shape, entry.count) for entry in entries if len(entry.shape) > 1}
        if len(sizes) == 1:
            names.append(name)
        elif len(widths) == 1 and all(len(entry.shape) == 2 for entry in entries) and has_token_rows(name):
            names.append(name)
            cuts[name] = min(entry.shape[0] for entry in entries)
    cut = [
        SelectedRows(model, rows)
        if index not in left_out
        and (
            rows := {name: np.arange(height) for name, height in cuts.items() if model.tensors[name].shape[0] != height}
        )
        else model
        for index, model in enumerate(models)
    ]
    return cut, tuple(name for name in names if models[kept[0]].tensors[name].count), left_out


def measure(
    models: Sequence[Checkpoint], names: Sequence[str], progress: Callable[[int], None] | None = None
) -> Geometry:
    """The geometry of ``models`` on tensors ``names`` by one pass: see `pairwise_gaps`. Raises `NonFiniteWeights`."""
    squares, apart = pairwise_gaps(models, names, progress)
    counts = np.array([models[0].tensors[name].count for name in names], dtype=np.float64)
    return Geometry(tuple(names), counts, squares, apart)
