"""By which recipe a combination was merged: how its coefficients run over the tensors, and what method makes such."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.module_kinds import KindOf, module_kind
from kinship.checkpoints.tensor_names import layer_label
from kinship.heritage.combinations import LENGTH_KNOWN, UNEXPLAINED, Combination, left_by, solve
from kinship.heritage.distances import Geometry
from kinship.heritage.family import Family
from kinship.heritage.rounding import DENOMINATORS

# Coefficients this near each other are the same; those of a tensor are known to about 1e-5.
SAME = 2e-3
# What one set of coefficients for many tensors may leave more than one for each, where rounding leaves some anyway.
MORE = 0.25
# By what recipes let coefficients vary, the simplest first.
GROUPINGS: tuple[tuple[str, Callable[[str, KindOf], str]], ...] = (
    ("all", lambda name, kind_of: "all"),
    ("layer", layer_label),
    ("module", lambda name, kind_of: kind_of(name)),
    ("layer_and_module", lambda name, kind_of: f"{layer_label(name, kind_of)}, {kind_of(name)}"),
    ("tensor", lambda name, kind_of: name),
)


@dataclass(frozen=True)
class Profile:
    """How coefficients run over the tensors: alike within the groups of ``by``, one of `GROUPINGS`.

    values: by group, the coefficients (k,) of the parents, or t (1,) where the combination is on an ``arc``.
    mean: (k,) coefficients, weighted by how much tensors tell.
    """

    by: str
    values: dict[str, Float64]
    mean: Float64
    arc: bool


def profile(one: Combination, geometry: Geometry, kind_of: KindOf = module_kind) -> Profile:
    """The coarsest of `GROUPINGS` that explains the child of ``one`` as well as coefficients of each tensor's own.

    ``kind_of`` tells the kind of module that a tensor is of.
    """
    scale = float(geometry.apart[:, one.child][:, list(one.parents)].min(1).sum())
    known = LENGTH_KNOWN * float(geometry.squares[:, one.child].sum()) if one.free else 0.0
    least = float(left_by(geometry, one, one.coefficients)[one.settled].sum())
    allowed = UNEXPLAINED * scale + known + (1 + MORE) * least
    weights = np.where(one.settled, geometry.apart[:, one.parents[0], one.parents[-1]], 0.0)
    mean: Float64 = np.average(one.coefficients, axis=0, weights=weights if weights.sum() else None)
    if one.free and len(one.parents) == 2:
        ts, angles = _arc_positions(one, geometry)
        for by, label in GROUPINGS:
            groups = _groups(geometry, one, label, kind_of)
            values = {
                group: np.atleast_1d(np.average(ts[mask], weights=weights[mask] + 1e-300))
                for group, mask in groups.items()
            }
            given = ts.copy()
            for group, mask in groups.items():
                given[mask] = values[group]
            off = left_by(geometry, one, _on_arc(given, angles))[one.settled].sum()
            if off <= allowed:
                return Profile(by, values, mean, True)
    for by, label in GROUPINGS[:-1]:
        groups = _groups(geometry, one, label, kind_of)
        solved, left = solve(geometry, one, list(groups.values()))
        if left.sum() <= allowed:
            values = dict(zip(groups, solved, strict=True))
            return Profile(by, values, values.get("all", mean), False)
    own = {name: row for name, row, ok in zip(geometry.names, one.coefficients, one.settled, strict=True) if ok}
    return Profile("tensor", own, mean, False)


def is_round(values: Sequence[float]) -> bool:
    """Whether all numbers are hundredths or fractions of small denominators, to what the Gram pass knows."""
    return all(min(abs(value * part - round(value * part)) / part for part in DENOMINATORS) < 3e-4 for value in values)


@dataclass(frozen=True)
class Recipe:
    """A ``method`` with its ``parameters``, plain values by ids; base: of task vectors, which is no parent."""

    method: str
    parameters: dict[str, Any]
    base: int | None = None


def recipe_of(one: Combination, family: Family, runs: Profile) -> Recipe:
    """Method and parameters of a combination, up to recipes that give the same weights.

    ``passthrough`` where every tensor is one parent's; ``slerp`` where coefficients lie on the arc and not on the line;
    ``task_arithmetic`` where one of three or more is negative, that of the base; ``model_stock`` where they are as in
    arXiv 2403.19522; else ``linear``, or ``combination`` where they differ from tensor to tensor as in no recipe.
    """
    geometry, ids = family.geometry, [family.id(parent) for parent in one.parents]
    values = one.coefficients[one.settled]
    if len(values) and np.all(np.abs(values - values.round()) < SAME) and np.ptp(values, axis=0).max() > 0.5:
        names = [name for name, is_settled in zip(geometry.names, one.settled, strict=True) if is_settled]
        owners = list(zip(names, values.argmax(1).tolist(), strict=True))
        slices = {id: [name for name, owner in owners if owner == place] for place, id in enumerate(ids)}
        return Recipe("passthrough", {"tensors": slices})
    if runs.arc:
        return Recipe("slerp" if runs.by != "tensor" else "combination", _written("t", runs, ids))
    base = int(runs.mean.argmin())
    if len(ids) > 2 and runs.by != "all" and (stock := _model_stock(one, geometry)) is not None:
        return Recipe("model_stock", {"base": ids[stock]})
    if not one.free and len(ids) > 2 and runs.mean[base] < -SAME and runs.by != "tensor":
        rest = {id: _tidy(w) for place, (id, w) in enumerate(zip(ids, runs.mean, strict=True)) if place != base}
        told: dict[str, Any] = {"base": ids[base], "lambda_times_weight": rest}
        told |= {} if runs.by == "all" else _written("weights", runs, ids)
        return Recipe("task_arithmetic", told, one.parents[base])
    if runs.by != "all":
        return Recipe("linear" if runs.by != "tensor" else "combination", _written("weights", runs, ids))
    if one.free:
        return Recipe("linear", {"normalize": False})
    return Recipe("linear", {"t": _tidy(runs.mean[1])} if len(ids) == 2 else {})


def _written(label: str, runs: Profile, ids: Sequence[str]) -> dict[str, Any]:
    """A profile as plain data: t, or weights by parent, by group."""
    told = {
        group: _tidy(row[0]) if runs.arc else {id: _tidy(w) for id, w in zip(ids, row, strict=True)}
        for group, row in runs.values.items()
    }
    return {label: told["all"]} if runs.by == "all" else {f"{label}_by_{runs.by}": told}


def _tidy(value: float) -> float:
    return round(float(value), 6) + 0.0


def _groups(
    geometry: Geometry, one: Combination, label: Callable[[str, KindOf], str], kind_of: KindOf
) -> dict[str, NDArray[np.bool_]]:
    """Masks (T,) of the settled tensors by group, in the order of the tensors' layers."""
    labels = np.array([label(name, kind_of) for name in geometry.names])
    masks = {group: (labels == group) & one.settled for group in dict.fromkeys(labels.tolist())}
    return {group: mask for group, mask in masks.items() if mask.any()}


def _arc_positions(one: Combination, geometry: Geometry) -> tuple[Float64, Float64]:
    """The t (T,) of SLERP from the quotient of two coefficients, tan(t a) = r sin a / (1 + r cos a), and a (T,).

    The angle a is 0 where SLERP is linear: above a cosine of 0.9995.
    """
    first, second = one.parents
    lengths = np.sqrt(geometry.squares[:, first] * geometry.squares[:, second])
    product = (geometry.squares[:, first] + geometry.squares[:, second] - geometry.apart[:, first, second]) / 2
    cosine = np.clip(product / np.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
    angle = np.where(np.abs(cosine) > 0.9995, 0.0, np.arccos(cosine))
    a, b = one.coefficients.T
    safe = np.where(angle > 0, angle, 1.0)
    t = np.where(angle > 0, np.arctan2(b * np.sin(safe), a + b * np.cos(safe)) / safe, b)
    return t, angle


def _on_arc(t: Float64, angle: Float64) -> Float64:
    """Coefficients (T, 2) of SLERP."""
    safe = np.where(angle > 0, angle, 1.0)
    both = np.stack([np.sin((1 - t) * safe), np.sin(t * safe)], 1) / np.sin(safe)[:, None]
    return np.where(angle[:, None] > 0, both, np.stack([1 - t, t], 1))


def _model_stock(one: Combination, geometry: Geometry) -> int | None:
    """Place of the base among the parents if the coefficients are those of Model Stock (Jang et al., eq. 4)."""
    count = len(one.parents) - 1
    for base, parent in enumerate(one.parents):
        tuned = [place for place in range(len(one.parents)) if place != base]
        models = [one.parents[place] for place in tuned]
        products = geometry.products(parent)[:, models][:, :, models]
        lengths = np.sqrt(np.maximum(np.diagonal(products, axis1=1, axis2=2), 1e-150))
        cosines = products / (lengths[:, :, None] * lengths[:, None, :])
        mean = (cosines.sum((1, 2)) - count) / (count * (count - 1))
        # Each model's part, t / N. Where the changes cancel it is not defined, and the base is kept.
        below = 1 + (count - 1) * mean
        share = np.where(np.abs(below) > 1e-6, mean / np.where(np.abs(below) > 1e-6, below, 1.0), 0.0)
        off = np.abs(one.coefficients[:, tuned] - share[:, None])[one.settled]
        if len(off) and off.max() < max(SAME / 4, 0.05 * math.sqrt(one.unexplained)):
            return base
    return None
