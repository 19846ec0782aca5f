"""Where training began, as told by how weights grew: at a model that is here, or before all that are.

Of siblings alone, one that moved little looks like the base of the others: distances are the same. What training does
to the lengths of rows and columns goes on from the base, though, whether it lengthens or shortens them, and goes on the
farther, the longer it lasts. So from the others' lengths, and their distances to where their paths from a model meet,
follow the lengths at that meeting point. A sibling is beyond it, as they are; a base is at it, or on the other side.
This is the molecular clock by which trees of species are rooted (root-to-tip regression; Rambaut et al., Virus
Evolution 2, 2016), with growth in the place of time.
"""

import numpy as np

from kinship.arrays import Float64
from kinship.heritage.family import Family
from kinship.heritage.sampling import matrices_of

# Growth is told from so many others at least, if their distances differ by this part of their mean.
FEWEST, UNLIKE = 2, 0.05
# A meeting point is at least this part of a path away from its ends.
NEAR = 0.01
# How far a model has gone on is told up to this.
MOST = 2.0
# The middle of it between bases and siblings: what is taken where it is not known.
MIDDLE = 0.5


def onset(family: Family, apart: Float64) -> tuple[Float64, Float64]:
    """Of each of the n models, as arrays (n,): how far it has gone on, and how well growth fits it as the root.

    apart: squared distances (n, n). The first is a part of what the others have gone on, about 1 for a sibling of
    theirs, 0 or less for their base; `MIDDLE` where too few others tell. The second is the share (0-1) of the variance
    of lengths that distances from it explain, less that of the best other model; 0 where too few others tell. Neither
    asks whether training lengthens or shortens. Cost: the elements sampled, n^2 times the rows and columns, and n^3.
    """
    lines, count = lengths(family), len(apart)
    gone, fits = np.full(count, MIDDLE), np.zeros(count)
    for model in range(count):
        others = [one for one in family.unmixed if apart[model, one] > 0 and one not in family.twins[model]]
        if len(others) < FEWEST:
            continue
        away = apart[model, others]
        shared = (away[:, None] + away - apart[np.ix_(others, others)]) / 2  # of each two paths
        own = max(float(np.median(shared[np.triu_indices(len(others), 1)])), 0.0)
        beyond = np.maximum(away - own, NEAR * away)
        if beyond.std() >= UNLIKE * beyond.mean():
            gone[model] = _gone(lines[:, model], lines[:, others], beyond)
        fits[model] = _explained(lines[:, [model, *others]], np.array([0.0, *away]))
    best = np.sort(fits)[-2:]
    rivals = np.where(np.arange(count) == fits.argmax(), best[0], best[-1])
    return gone, fits - rivals if count > 1 else fits


def _gone(mine: Float64, others: Float64, beyond: Float64) -> float:
    """From lengths of one model (lines,) and of others (lines, k), which are ``beyond`` (k,) the meeting point."""
    spread = beyond - beyond.mean()
    rates = (others - others.mean(1, keepdims=True)) @ spread / (spread @ spread)
    began = others.mean(1) - rates * beyond.mean()
    total = float(rates @ rates) * float(beyond.mean())
    return float(np.clip(rates @ (mine - began) / total, -MOST, MOST)) if total > 0 else MIDDLE


def _explained(lines: Float64, depth: Float64) -> float:
    """Share of the variance of ``lines`` (lines, k) that is linear in ``depth`` (k,)."""
    lines, depth = lines - lines.mean(1, keepdims=True), depth - depth.mean()
    total = float(np.square(lines).sum()) * float(depth @ depth)
    return float(np.square(lines @ depth).sum()) / total if total > 0 else 0.0


def lengths(family: Family) -> Float64:
    """Logarithms (lines, n) of the lengths of rows and columns of the sampled matrices that all n models have."""
    count = len(family.compared)
    found = [
        np.log(np.maximum(np.square(one.values.astype(np.float64)).sum(axis), 1e-300)).T / 2
        for one in matrices_of(family.samples, range(count))
        for axis in (1, 2)
    ]
    return np.concatenate(found) if found else np.zeros((0, count))
