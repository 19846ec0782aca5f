"""Log-linear distributions over forests: every node has one parent or is a root, and none is its own ancestor.

``P(forest) ~ exp(scores of its edges + scores of its roots + single, if it has one root)``. Sums over all forests are
determinants (directed matrix-tree theorem, Tutte 1948; for such models Koo, Globerson, Carreras, Collins, EMNLP 2007):
of the Laplacian with the weights of roots added to its diagonal, or, of trees with one root, in place of one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinship.gram import Float64

# A score counts as at most so much below the best one of the same node: what is less likely does not matter.
FAR = 25.0


@dataclass(frozen=True)
class Forests:
    """``log_total``: log of the sum over forests. ``edges`` (n, n), ``roots`` (n,), ``single``: probabilities.

    They are the gradient of ``log_total`` with respect to what `forests` was given.
    """

    log_total: float
    edges: Float64
    roots: Float64
    single: float


def forests(edges: Float64, roots: Float64, single: float = 0.0) -> Forests:
    """The distribution given scores of (parent, child) ``edges`` (n, n), of ``roots`` (n,), and of having one root.

    Minus infinity is what cannot be; of each node's column and root something can. Cost: n^3.

    >>> none = -np.inf
    >>> two = forests(np.array([[none, 0.0], [0.0, none]]), np.zeros(2))  # a parent of b, b of a, or two roots
    >>> round(np.exp(two.log_total)), two.edges.round(2).tolist(), round(two.single, 2)
    (3, [[0.0, 0.33], [0.33, 0.0]], 0.67)
    """
    best = np.maximum(edges.max(0), roots)
    weights = np.where(np.isfinite(edges), np.exp(np.maximum(edges - best, -FAR)), 0.0)
    starts = np.where(np.isfinite(roots), np.exp(np.maximum(roots - best, -FAR)), 0.0)
    laplacian = np.diag(weights.sum(0)) - weights

    any_number = laplacian + np.diag(starts)
    log_any, inverse = np.linalg.slogdet(any_number)[1], np.linalg.inv(any_number)
    kept = np.diagonal(inverse)
    edges_any, roots_any = weights * (kept - inverse.T), starts * kept

    one_root = laplacian
    one_root[0] = starts
    log_one = np.linalg.slogdet(one_root)[1]
    forced = (~np.isfinite(edges).any(0)).sum()
    if forced > 1 or log_one < log_any - FAR:
        return Forests(float(log_any + best.sum()), edges_any, roots_any, 0.0)
    inverse = np.linalg.inv(one_root)
    kept, lost = np.diagonal(inverse).copy(), inverse.T.copy()
    kept[0], lost[0] = 0.0, 0.0  # what the first row held is not there
    edges_one, roots_one = weights * (kept - lost), starts * inverse[:, 0]

    # All forests count once, those of one root exp(single) times: once more exp(single) - 1 times.
    share = min(1.0, float(np.exp(log_one - log_any)))
    more = share * np.expm1(single)
    return Forests(
        float(log_any + best.sum() + np.log1p(more)),
        (edges_any + more * edges_one) / (1 + more),
        (roots_any + more * roots_one) / (1 + more),
        float((share + more) / (1 + more)),
    )


def mixture(parts: Sequence[Forests], odds: Sequence[float]) -> tuple[Forests, Float64]:
    """Where it is not known which of ``parts`` holds: forests under each, times ``exp(odds)`` of it; and its chance.

    >>> one, other = (forests(np.full((1, 1), -np.inf), np.array([score])) for score in (0.0, np.log(3)))
    >>> mixture([one, other], [0.0, 0.0])[1].round(2).tolist()
    [0.25, 0.75]
    """
    logs = np.array([part.log_total for part in parts]) + np.array(odds)
    chances = np.exp(logs - logs.max())
    total = float(logs.max() + np.log(chances.sum()))
    chances = chances / chances.sum()
    edges = np.tensordot(chances, np.stack([part.edges for part in parts]), 1)
    roots = np.tensordot(chances, np.stack([part.roots for part in parts]), 1)
    return Forests(total, edges, roots, float(chances @ [part.single for part in parts])), chances
