"""Dendrograms: kinship as a hierarchy of clusters."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from kinship.arrays import Float64
from kinship.errors import InvalidConfig
from kinship.measures.matrix import KinshipMatrix
from kinship.outside import on_terminal


def distances(matrix: KinshipMatrix) -> Float64:
    """Distances (n, n) for clustering: 1 - similarity, or the metric itself where it is a distance.

    Models without direction (NaN) count as farthest from all others.
    """
    values = 1.0 - matrix.values if matrix.spec.higher_is_closer else matrix.values.copy()
    farthest = np.nanmax(values, initial=1.0)
    values = np.where(np.isnan(values), farthest, values)
    np.fill_diagonal(values, 0.0)
    return np.clip((values + values.T) / 2, 0.0, None)


def cluster(matrix: KinshipMatrix) -> Float64:
    """Average linkage (UPGMA) in SciPy's format (n-1, 4), leaves in optimal order (Bar-Joseph et al. 2001).

    Time O(n^2), the ordering O(n^3). Raises `InvalidConfig` for fewer than two models.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    if len(matrix.ids) < 2:
        raise InvalidConfig("A dendrogram needs at least two models.", hint="Give more models.")
    result: Float64 = linkage(squareform(distances(matrix), checks=False), "average", optimal_ordering=True)
    return result


def leaf_order(matrix: KinshipMatrix) -> list[int]:
    """Indices of the models in the order in which a dendrogram shows them."""
    from scipy.cluster.hierarchy import leaves_list

    if len(matrix.ids) < 2:
        return list(range(len(matrix.ids)))
    return [int(index) for index in leaves_list(cluster(matrix))]


def newick(linkage: Float64, ids: Sequence[str]) -> str:
    """A dendrogram in SciPy's format (n-1, 4) as Newick text; the two sides of a join end at its height.

    >>> newick(np.array([[0, 1, 2.0, 2], [2, 3, 3.0, 3]]), ["a", "b", "c d"])
    "('c d':3,(a:2,b:2):1);\\n"
    """
    texts = [_label(id) for id in ids]
    heights = [0.0] * len(ids)
    for left, right, height, _ in linkage.tolist():
        sides = sorted((int(left), int(right)))
        texts.append(f"({','.join(f'{texts[side]}:{height - heights[side]:.6g}' for side in sides)})")
        heights.append(height)
    return texts[-1] + ";\n"


def dendrogram_lines(linkage: Float64, names: Sequence[str]) -> Iterator[str]:
    """A dendrogram in SciPy's format (n-1, 4) as lines of a terminal: models, and the heights at which they join.

    >>> print(*dendrogram_lines(np.array([[0, 1, 0.25, 2], [2, 3, 0.5, 3]]), ["a", "b", "c"]), sep="\\n")
    ─ 0.5000
      ├─ c
      └─ 0.2500
         ├─ a
         └─ b
    """
    count = len(names)
    stack: list[tuple[int, tuple[bool, ...]]] = [(count + len(linkage) - 1, ())]
    while stack:
        place, last = stack.pop()
        lead = f"  {branches(last)}" if last else "─ "
        if place < count:
            yield lead + on_terminal(names[place])
            continue
        left, right, height, _ = linkage[place - count].tolist()
        yield f"{lead}{height:.4f}"
        sides = sorted((int(left), int(right)))
        stack += [(side, (*last, side == sides[1])) for side in sides[::-1]]


def neighbour_joining(distances: Float64, ids: Sequence[str]) -> str:
    """The neighbour-joining tree (Saitou and Nei 1987) of ``distances`` (n, n) as Newick text, unrooted.

    Unlike UPGMA it does not take all models to be equally far from their common ancestor; on distances that are
    additive along a tree it finds that tree. Branches may come out a little negative on others. Of pairs that could
    be joined with equal right the first in order is. Time O(n^3), memory O(n^2).
    Raises `InvalidConfig` for fewer than two models, and for distances that are not finite.

    >>> neighbour_joining(np.array([[0, 3, 5], [3, 0, 6], [5, 6, 0]]), ["a", "b", "c"])
    '(a:1,b:2,c:4);\\n'
    """
    if len(ids) < 2:
        raise InvalidConfig("A tree needs at least two models.", hint="Give more models.")
    texts, gaps = [_label(id) for id in ids], np.array(distances, dtype=np.float64)
    if gaps.shape != (len(ids), len(ids)) or not np.isfinite(gaps).all():
        raise InvalidConfig(
            f"Distances of {len(ids)} models are {len(ids)} x {len(ids)} finite numbers; found: {list(gaps.shape)}.",
            hint="`distances(matrix)` of this module has a number for every pair.",
        )
    if len(ids) == 2:
        half = gaps[0, 1] / 2
        return f"({texts[0]}:{half:.6g},{texts[1]}:{half:.6g});\n"
    while len(texts) > 3:
        count, sums = len(texts), gaps.sum(axis=0)
        gains = (count - 2) * gaps - sums[:, None] - sums  # Q of Studier and Keppler 1988
        gains[np.tril_indices(count)] = np.inf
        one, two = divmod(int(gains.argmin()), count)
        branch = gaps[one, two] / 2 + (sums[one] - sums[two]) / (2 * (count - 2))
        joined = f"({texts[one]}:{branch:.6g},{texts[two]}:{gaps[one, two] - branch:.6g})"
        others = [index for index in range(count) if index not in (one, two)]
        new = (gaps[one] + gaps[two] - gaps[one, two]) / 2
        gaps = np.block([[gaps[np.ix_(others, others)], new[others, None]], [new[None, others], np.zeros((1, 1))]])
        texts = [*(texts[index] for index in others), joined]
    ends = [(gaps[a, b] + gaps[a, c] - gaps[b, c]) / 2 for a, b, c in ((0, 1, 2), (1, 0, 2), (2, 0, 1))]
    return f"({','.join(f'{text}:{end:.6g}' for text, end in zip(texts, ends, strict=True))});\n"


def _label(id: str) -> str:
    """A name as Newick takes it: bare, or in single quotes with quotes inside doubled."""
    id = on_terminal(id)
    return id if re.fullmatch(r"[\w.+-]+", id) else "'" + id.replace("'", "''") + "'"


def branches(last: Sequence[bool]) -> str:
    """What stands before the name of one in a tree of lines; ``last``: of each of its ancestors below the root, and of
    itself, whether it is the last child.

    >>> branches([False, True]) + "grandchild"
    '│  └─ grandchild'
    """
    leads = ["   " if one else "│  " for one in last[:-1]]
    return "".join(leads) + ("└─ " if last[-1] else "├─ ") if last else ""
