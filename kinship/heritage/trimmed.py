"""Merges that trim: TIES, DARE and their kin leave many weights at the base and take others over from parents, exactly.

No Gram matrix shows that, so the sampled weights of the suspects are looked at one by one. Each changed weight of such
a child is the base's plus a sum of some parents' changes times fixed factors: lambda w / p for DARE (arXiv
2311.03099), lambda w for what trims by size. TIES (arXiv 2306.01708) takes the mean of those that agree in sign. A
hypothesis holds if that gives (nearly) every weight to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float32, Float64
from kinship.heritage.family import LIKELY, Family, Finding, Relation
from kinship.heritage.grids import last_place
from kinship.heritage.sampling import Sample, matrices_of

# Of each matrix, at most so many weights are looked at; of a model, at least so many.
MOST, FEWEST = 4096, 500
# Quotients of changes are alike within BIN of their logarithm; so many of the changed weights must have a parent's; and
# they lie in this range. Changes count from so many units in the last place on.
BIN, SHARE, LEAST, MOST_TIMES, LARGE = {"float32": 2e-3, "float16": 1e-2, "bfloat16": 3e-2}, 0.03, 0.05, 12.0, 16.0
# A weight is told within so many units in the last place; whether a change counts is sure from so many on.
OFF = {"float32": 6.0, "float16": 0.75, "bfloat16": 0.75}
SURE = {"float32": 12.0, "float16": 4.0, "bfloat16": 4.0}
# A suspect shares between these parts of its weights with its base; so many must be told, and of those that changed at
# most so many by changes of other weights (by chance, that is).
FEW, ALMOST_ALL, TOLD, CHANCE = 0.004, 0.98, 0.98, 0.7
NEAREST, MOST_PARENTS = 24, 4
# Without the base, so many must be told.
MOSTLY = 0.9
# Chance that a kept change is larger than one that was not: by size above, at random below.
BY_SIZE, AT_RANDOM = 0.9, 0.56


@dataclass(frozen=True)
class TrimmedMerge:
    """``child`` is a trimmed merge of ``parents`` onto ``base`` (None: not here, where lambda is 1, or one of them).

    method: ``ties``; ``dare`` or ``dare_ties``, where what was kept does not go by size; ``trimmed`` by size otherwise
    (breadcrumbs, TIES that sums, DELLA); ``selection`` where every weight is one of the parents'. factors: by parent,
    its change times this is the child's, where it alone counts. kept: by parent, the part of its changes that count.
    unchanged: the part of weights left at the base. told: the part of the child's weights that this explains. larger:
    chance that a change that was kept is larger than one that was not.
    """

    child: int
    parents: tuple[int, ...]
    base: int | None
    method: str
    factors: tuple[float, ...]
    kept: tuple[float, ...]
    unchanged: float
    told: float
    larger: float


def find_trimmed(family: Family) -> Finding:
    """TrimmedMerge merges of plain models among those of which nothing is known, no model its own ancestor."""
    graph = nx.DiGraph(family.certain)
    found, latent = [], []
    for one in sorted(trimmed_merges(family), key=lambda one: -one.told):
        above = [*one.parents, *([] if one.base is None else [one.base])]
        graph.add_nodes_from([one.child, *above])
        if any(nx.has_path(graph, one.child, other) for other in above):
            continue
        graph.add_edges_from((other, one.child) for other in above)
        found.append(Relation(one.child, "merge", LIKELY, _evidence(one, family)))
        if one.base is None and one.method != "selection":
            latent.append(((one.child,), "the base of a trimmed merge is not here"))
    return Finding(found, latent)


def _evidence(one: TrimmedMerge, family: Family) -> dict[int, dict[str, Any]]:
    return {
        parent: {
            "method": one.method,
            "factor": round(factor, 4),
            "kept": round(kept, 4),
            "base": None if one.base is None else family.id(one.base),
            "left_at_base": round(one.unchanged, 4),
            "told": round(one.told, 4),
        }
        for parent, factor, kept in zip(one.parents, one.factors, one.kept, strict=True)
    }


def trimmed_merges(family: Family) -> list[TrimmedMerge]:
    """The likeliest hypothesis for each unexplained model that one holds for; parents are of the plain models.

    Only matrices that all of them have are looked at.
    """
    plain = family.plain
    everyone = set(plain)
    whole = {model: _weights(family.samples, model, everyone) for model in everyone}
    matrices = _matrices(family.samples, everyone)
    apart = family.geometry.total
    found = []
    for child in family.unexplained:
        near = sorted((one for one in plain if one != child), key=lambda one: apart[child, one])[:NEAREST]
        mine, grid = whole[child], family.grids[child]
        equal = {one: mine == whole[one] for one in near}
        # What is alike in several models (frozen in training) tells nothing.
        use = sum(equal.values()) < 2 if grid == "float32" else np.ones(mine.shape, dtype=bool)
        if np.count_nonzero(use) < FEWEST:
            continue
        rows = {model: whole[model][use] for model in (child, *near)}
        matrix = matrices[use]
        bases = [one for one in near if FEW < equal[one][use].mean() < ALMOST_ALL]
        options = [
            _without_base(rows, child, bases, grid),
            *(_onto(rows, matrix, child, base, near, grid) for base in bases),
        ]
        known = [option for option in options if option is not None]
        if known:
            found.append(max(known, key=_plain))
    return found


def _plain(one: TrimmedMerge) -> tuple[float, bool, bool, int, bool, float]:
    """Of hypotheses that tell as much, the one with the fewest parents, with a method, that leaves most at the base."""
    return (
        round(one.told, 3),
        one.method == "selection",
        one.base is not None,
        -len(one.parents),
        one.method == "ties",
        one.unchanged,
    )


def _weights(samples: Sequence[Sample], model: int, everyone: set[int]) -> Float32:
    """The weights that are looked at, of matrices that ``everyone`` has."""
    parts = [one.of(model).reshape(-1) for one in matrices_of(samples, everyone)]
    return np.concatenate([part[:: _step(part.size)] for part in parts] or [np.empty(0, dtype=np.float32)])


def _matrices(samples: Sequence[Sample], everyone: set[int]) -> NDArray[np.int64]:
    """The number of the matrix that each of `_weights` is of."""
    sizes = [one.values[0].size for one in matrices_of(samples, everyone)]
    return np.repeat(np.arange(len(sizes)), [len(range(0, size, _step(size))) for size in sizes])


def _step(size: int) -> int:
    return max(1, size // MOST)


def _onto(
    rows: dict[int, Float32], matrix: NDArray[np.int64], child: int, base: int, near: Sequence[int], grid: str
) -> TrimmedMerge | None:
    origin = rows[base].astype(np.float64)
    change = rows[child] - origin
    unit = last_place(np.maximum(np.abs(rows[child]), np.abs(rows[base])), grid)
    off = OFF[grid] * unit
    parents, theirs = [], []
    for one in near:
        own = rows[one] - origin
        factor = _factor(change, own, unit, grid) if one != base else None
        if factor is not None:
            parents.append(one)
            theirs.append(factor * own)
    order = np.argsort([-float((np.abs(change - own) <= off)[np.abs(own) > off].mean()) for own in theirs])
    parents, theirs = (
        [parents[place] for place in order[:MOST_PARENTS]],
        [theirs[place] for place in order[:MOST_PARENTS]],
    )
    if len(parents) < 2:
        return None
    best = _explain(change, theirs, off)
    for place in reversed(range(len(parents))):  # of relatives whose changes are alike, those that are needed
        fewer = [own for index, own in enumerate(theirs) if index != place]
        if len(fewer) >= 2 and (without := _explain(change, fewer, off))[0] > best[0] - 0.005:
            parents, theirs, best = [one for index, one in enumerate(parents) if index != place], fewer, without
    told, means, taken = best
    unchanged = float((np.abs(change) <= off).mean())
    chance = _explain(change, [np.roll(own, 1 + place) for place, own in enumerate(theirs)], off)[0]
    if told < TOLD or chance - unchanged > CHANCE * (1 - unchanged):
        return None
    kept = [float(use[np.abs(own) > off].mean()) for use, own in zip(taken, theirs, strict=True)]
    sure = [np.abs(own) > SURE[grid] * unit for own in theirs]
    elected = not _opposite(theirs, [use & far for use, far in zip(taken, sure, strict=True)])
    # Where signs are elected, large changes lose too; but not where nobody's count.
    left = [~np.any(taken, axis=0)] * len(taken) if elected else [~use for use in taken]
    sizes = [np.where(far, np.abs(own), 0.0) for own, far in zip(theirs, sure, strict=True)]
    larger = float(
        np.mean(
            [
                _larger(size[use & (matrix == one)], size[no & (matrix == one)])
                for size, use, no in zip(sizes, taken, left, strict=True)
                for one in np.unique(matrix)
            ]
        )
    )
    factors = []
    for one, own in zip(parents, theirs, strict=True):
        raw = rows[one] - origin
        factors.append(float((own @ raw) / (raw @ raw)))
    return TrimmedMerge(
        child,
        tuple(parents),
        base,
        _method(means, larger, elected, grid == "float32" or len(parents) < 4),
        tuple(factors),
        tuple(kept),
        unchanged,
        told,
        larger,
    )


def _method(means: bool, larger: float, elected: bool, sure: bool) -> str:
    """By what was kept: TIES and others keep by size, DARE at random; TIES takes means, and signs are elected.

    sure: whether it is clear what was kept; of many parents, rounding to 16 bits leaves that open.
    """
    if means and elected and larger > BY_SIZE:
        return "ties"
    if not sure or abs(larger - 0.5) > AT_RANDOM - 0.5:
        return "trimmed"
    return "dare_ties" if means or elected else "dare"


def _factor(mine: Float64, theirs: Float64, unit: Float64, grid: str) -> float | None:
    """The commonest quotient of two changes; None where none is common."""
    use = (np.abs(theirs) > LARGE * unit) & (np.abs(mine) > LARGE / 2 * unit)
    quotients = mine[use] / theirs[use]
    quotients = quotients[(quotients > LEAST) & (quotients < MOST_TIMES)]
    if not quotients.size:
        return None
    bins = np.round(np.log(quotients) / BIN[grid]).astype(int)
    values, counts = np.unique(bins, return_counts=True)
    factor = float(np.median(quotients[np.abs(bins - values[counts.argmax()]) <= 1]))
    for width in (BIN[grid], BIN[grid] / 10, 0.0):
        hits = use & (np.abs(mine - factor * theirs) <= width * np.abs(mine) + OFF[grid] * unit)
        if hits.sum() < SHARE * max(use.sum(), 1):
            return None
        factor = float((mine[hits] @ theirs[hits]) / (theirs[hits] @ theirs[hits]))
    return factor


def _explain(change: Float64, theirs: Sequence[Float64], off: Float64) -> tuple[float, bool, list[NDArray[np.bool_]]]:
    """The part of weights told by sums, or by means, of some of ``theirs``; whether by means; who counts where."""
    best: tuple[float, bool, list[NDArray[np.bool_]]] | None = None
    for means in (False, True):
        left = np.full(change.shape, np.inf)
        taken = [np.zeros(change.shape, dtype=bool) for _ in theirs]
        for count in range(len(theirs) + 1):
            for chosen in combinations(range(len(theirs)), count):
                guess = sum((theirs[place] for place in chosen), np.zeros(change.shape)) / (
                    max(count, 1) if means else 1
                )
                away = np.abs(change - guess)
                better = (away < left) & (left > off)  # the fewest that do
                left = np.where(better, away, left)
                for place, use in enumerate(taken):
                    use[better] = place in chosen
        told = float((left <= off).mean())
        if best is None or told > best[0] + 0.005:
            best = told, means, taken
    assert best is not None
    return best


def _opposite(theirs: Sequence[Float64], taken: Sequence[NDArray[np.bool_]]) -> bool:
    """Whether changes of opposite sign count together, as they cannot where signs are elected."""
    for one, other in combinations(range(len(theirs)), 2):
        both = taken[one] & taken[other]
        if both.any() and (np.sign(theirs[one][both]) != np.sign(theirs[other][both])).mean() > 0.1:
            return True
    return False


def _larger(kept: Float64, left: Float64) -> float:
    """The chance that one of ``kept`` is larger than one of ``left`` (Mann-Whitney), zeros aside; 1 if none is left."""
    kept, left = kept[kept > 0], np.sort(left[left > 0])
    if not len(kept) or not len(left):
        return 1.0
    return float(np.searchsorted(left, kept).mean() / len(left))


def _without_base(rows: dict[int, Float32], child: int, owners: Sequence[int], grid: str) -> TrimmedMerge | None:
    """TIES with lambda 1 whose base is not here: weights are a parent's or the mean of some; or a selection of them."""
    mine = rows[child]
    alone = {one: mine == rows[one] for one in owners}
    parents = [one for one in owners if alone[one].mean() > SHARE]
    if not 2 <= len(parents) <= MOST_PARENTS or grid != "float32":
        return None
    single = np.any([alone[one] for one in parents], axis=0)
    off = OFF[grid] * last_place(mine, grid)
    mixed = np.zeros(mine.shape, dtype=bool)
    for count in range(2, len(parents) + 1):
        for chosen in combinations(parents, count):
            mixed |= np.abs(np.mean([rows[one].astype(np.float64) for one in chosen], axis=0) - mine) <= off
    told = float((single | mixed).mean())
    if single.mean() > TOLD:
        method = "selection"
    elif (mixed & ~single).mean() > SHARE and told > MOSTLY:
        method = "ties"
    else:
        return None
    kept = tuple(float(alone[one].mean()) for one in parents)
    return TrimmedMerge(child, tuple(parents), None, method, (1.0,) * len(parents), kept, 0.0, told, 0.5)
