"""Merges that trim: TIES and DARE leave most weights at the base and take others over from one parent, exactly.

No Gram matrix shows that, so the sampled weights of the suspects are looked at one by one. Where one parent alone
counts, a child's change is a fixed multiple of that parent's: lambda for TIES (arXiv 2306.01708), lambda w / p for DARE
(arXiv 2311.03099). Of unrelated changes, a share of about the bin's width has any one quotient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinship.heritage.grids import HALF_ULP
from kinship.heritage.sampling import Float32, Sample

# Quotients are alike within this; so many of the changed weights must be for a parent; and lambdas lie in this range.
BIN, SHARE, LEAST, MOST = 2e-3, 0.04, 0.05, 3.0
ERROR = 1e-7  # of a weight: rounding in fp32, of itself and of what it was computed from

# A suspect shares between these parts of the weights of its changed matrices with another model, number by number.
FEW, ALMOST_ALL = 0.02, 0.98
NEAREST = 24


@dataclass(frozen=True)
class Trimmed:
    """``child`` is a trimmed merge of ``parents`` onto ``base`` (None: not here, where lambda is 1).

    quotients: by parent, its change times this is the child's. shares: by parent, the part of the child's changed
    weights with that quotient. unchanged: the part of weights left at the base. order: see `_order`.
    """

    child: int
    parents: tuple[int, ...]
    base: int | None
    quotients: tuple[float, ...]
    shares: tuple[float, ...]
    unchanged: float
    order: float


def find_trimmed(
    samples: Sequence[Sample], children: Sequence[int], candidates: Sequence[int], apart: NDArray[np.float64], grid: str
) -> list[Trimmed]:
    """Trimmed merges among ``children``, of at least two of ``candidates`` (places); ``apart``: squared distances."""
    kept = [one for one in samples if min(one.values.shape[1:]) > 1]
    rows: dict[int, list[Float32]] = {
        model: [one.values[one.owners.index(model)].reshape(-1) for one in kept if model in one.owners]
        for model in {*children, *candidates}
    }
    same: dict[tuple[int, int], float] = {}

    def shared(one: int, other: int) -> float:
        key = (min(one, other), max(one, other))
        if key not in same:
            same[key] = _shared(rows[key[0]], rows[key[1]], 4 * HALF_ULP[grid])
        return same[key]

    found = []
    for child in children:
        near = sorted((one for one in candidates if one != child), key=lambda one: apart[child, one])[:NEAREST]
        bases = [one for one in near if FEW < shared(child, one) < ALMOST_ALL]
        options = [
            option for base in bases if (option := _onto(rows, child, base, near, shared(child, base))) is not None
        ]
        if options:
            found.append(
                max(options, key=lambda option: option.order + len(option.parents) / 20 + sum(option.shares) / 10)
            )
            continue
        owners = [one for one in bases if shared(child, one) > SHARE]
        pairs = [one for one in owners if all(shared(one, other) < FEW for other in owners if other != one)]
        if len(pairs) >= 2:
            shares = tuple(shared(child, one) for one in pairs)
            found.append(Trimmed(child, tuple(pairs), None, (1.0,) * len(pairs), shares, 0.0, 0.5))
    return found


def _onto(
    rows: dict[int, list[Float32]], child: int, base: int, near: Sequence[int], unchanged: float
) -> Trimmed | None:
    origin = [part.astype(np.float64) for part in rows[base]]
    change = [part - other for part, other in zip(rows[child], origin, strict=True)]
    changed = [np.abs(part) > 20 * ERROR * np.abs(other) for part, other in zip(change, origin, strict=True)]
    places = [place for place, mask in enumerate(changed) if 50 <= mask.sum() < ALMOST_ALL * mask.size]
    if not places:
        return None
    parents = []
    for one in near:
        if one == base:
            continue
        theirs = [rows[one][place] - origin[place] for place in places]
        mine = [change[place] for place in places]
        quotient = _usual_quotient(mine, theirs)
        if quotient is None:
            continue
        hits = [
            np.abs(ours - quotient * own) <= 2 * BIN * np.abs(ours) + 4 * ERROR * np.abs(origin[place])
            for ours, own, place in zip(mine, theirs, places, strict=True)
        ]
        hits = [hit & changed[place] for hit, place in zip(hits, places, strict=True)]
        share = float(np.median([hit.sum() / changed[place].sum() for hit, place in zip(hits, places, strict=True)]))
        if share > SHARE:
            order = _order(theirs, hits, [~changed[place] for place in places])
            parents.append((one, quotient, share, order, np.concatenate(hits)))
    # Of relatives whose changes are the same in part (an adapter's parent), the one that explains more.
    parents.sort(key=lambda entry: -entry[2])
    explained, count = np.zeros(sum(len(change[place]) for place in places), dtype=bool), 0
    count = sum(int(changed[place].sum()) for place in places)
    chosen = []
    for one, quotient, share, order, hit in parents:
        if (hit & ~explained).sum() > SHARE / 2 * count:
            chosen.append((one, quotient, share, order))
            explained |= hit
    if len(chosen) < 2:
        return None
    models, quotients, shares, orders = zip(*chosen, strict=True)
    return Trimmed(child, models, base, quotients, shares, unchanged, float(np.mean(orders)))


def _usual_quotient(mine: Sequence[NDArray[np.float64]], theirs: Sequence[NDArray[np.float64]]) -> float | None:
    """The commonest quotient of two changes, over all matrices."""
    quotients = np.concatenate(
        [ours[own != 0] / own[own != 0] for ours, own in zip(mine, theirs, strict=True)] or [np.empty(0)]
    )
    quotients = quotients[(quotients > LEAST) & (quotients < MOST)]
    if not quotients.size:
        return None
    bins = np.round(np.log(quotients) / BIN).astype(int)
    values, counts = np.unique(bins, return_counts=True)
    return float(np.median(quotients[np.abs(bins - values[counts.argmax()]) <= 1]))


def _order(
    theirs: Sequence[NDArray[np.float64]], hits: Sequence[NDArray[np.bool_]], left: Sequence[NDArray[np.bool_]]
) -> float:
    """How much larger a parent's changes are where they were kept than where the base was left: 0.5 is no larger.

    TIES keeps the largest; taking a parent for the base turns that round.
    """
    parts = []
    for own, kept, trimmed in zip(theirs, hits, left, strict=True):
        if kept.any() and trimmed.any():
            parts.append(float((np.abs(own[kept]) > np.median(np.abs(own[trimmed]))).mean()))
    return float(np.median(parts)) if parts else 0.5


def _shared(one: Sequence[Float32], other: Sequence[Float32], tolerance: float) -> float:
    """Median over the matrices that differ of the share of weights that are equal to rounding."""
    shares = []
    for a, b in zip(one, other, strict=False):
        near = np.abs(a - b) <= tolerance * np.maximum(np.abs(a), np.abs(b))
        if not near.all():
            shares.append(float(near.mean()))
    return float(np.median(shares)) if shares else 1.0
