"""The directed tree of fine-tunes: the branching of most expected right edges, over a distribution of all trees.

The distribution is log-linear in the signals of edges and roots (`kinship.heritage.signals`), for each of two kinds of
families; sums over all forests are determinants (directed matrix-tree theorem), and probabilities of edges their
gradients. Edmonds' algorithm (networkx) on what those exceed `LEAST` by is minimum Bayes risk; a model none of whose
parents does is a root, whose ancestor is not here. The weights of the signals were fitted on families grown with known
truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.heritage.signals import NAMES, ROOTS

# Families are of two kinds, told by which explains one better: training lengthens matrices, as it does in most, or it
# shortens them, as where what a long training built is undone. Signals of direction have a weight for each.
WEIGHTS: dict[str, tuple[float, float]] = {
    "place": (-1.908, -1.908),
    "between": (2.414, 2.414),
    "beyond": (-1.064, -1.064),
    "offshoot": (-6.151, -6.151),
    "overshoot": (-20.636, -20.636),
    "bridge": (1.392, 1.392),
    "frozen": (8.25, 8.25),
    "kept": (2.474, 2.474),
    "kept_most": (0.755, 0.755),
    "elsewhere": (-8.363, -8.363),
    "shorter": (1.438, 1.438),
    "longer": (2.82, -1.153),
    "even": (0.778, 3.429),
    "rooted": (-0.791, -0.791),
    "lengthened": (-8.853, 5.164),
}
# For a family that has one root: its founder is here.
SINGLE = (2.343, 2.343)
# Log odds of the kinds, other things being equal.
ODDS = (0.0, 2.583)
# An edge is told if its probability is more. Told edges count in the F1 if they are right oftener than half the F1.
LEAST = 0.45
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


def edge_scores(values: Float64) -> Float64:
    """Of ordered pairs, from their signals (..., len(NAMES)), by kind of family (..., 2)."""
    scores: Float64 = values @ np.array([WEIGHTS[name] for name in NAMES])
    return scores


def root_scores(values: Float64) -> Float64:
    """Of models, from their signals (..., len(ROOTS)), by kind of family (..., 2)."""
    scores: Float64 = values @ np.array([WEIGHTS[name] for name in ROOTS])
    return scores


@dataclass(frozen=True)
class Options:
    """What a tree may be made of: ``nodes`` (m,), places of models; ``edges`` (m, m) and ``roots`` (m,) of them.

    ``certain``: edges known already, the only ones to their children; of several to one child a tree has one.
    """

    nodes: tuple[int, ...]
    edges: NDArray[np.bool_]
    roots: NDArray[np.bool_]
    certain: NDArray[np.bool_]


def options(
    values: Float64,
    children: Sequence[int],
    parents: Sequence[int],
    certain: Sequence[tuple[int, int]],
) -> Options:
    """Arguments are those of `branch`."""
    nodes = tuple(sorted({*children, *parents}))
    at = {model: place for place, model in enumerate(nodes)}
    known = nx.DiGraph(certain)
    edges, sure = np.zeros((2, len(nodes), len(nodes)), dtype=bool)
    for child in children:
        below = nx.descendants(known, child) if child in known else set()
        for parent in parents:
            edges[at[parent], at[child]] = parent not in below and values[parent, child].any()
    for parent, child in certain:
        if parent in at and child in at and child not in children:
            sure[at[parent], at[child]] = True
    return Options(nodes, edges, np.array([not column.any() for column in sure.T]), sure)


def distribution(choice: Options, edges: Float64, roots: Float64, single: float) -> Forests:
    """Of all trees of ``choice``, from scores of its edges (m, m) and roots (m,) and of having one root."""
    scores = np.where(choice.edges, edges, np.where(choice.certain, 0.0, -np.inf))
    return forests(scores, np.where(choice.roots, roots, -np.inf), single)


def branch(
    values: Float64,
    roots: Float64,
    children: Sequence[int],
    parents: Sequence[int],
    certain: Sequence[tuple[int, int]],
) -> dict[int, tuple[int, float]]:
    """Parent and its probability of those ``children`` that have one: from `kinship.heritage.signals.signals`.

    values: (n, n, signals) of pairs; roots: (n, signals) of models. certain: edges (parent, child) known already; no
    cycle is made with them.
    """
    choice = options(values, children, parents, certain)
    nodes = np.array(choice.nodes)
    edges, founding = edge_scores(values[np.ix_(nodes, nodes)]), root_scores(roots[nodes])
    kinds = [distribution(choice, edges[..., k], founding[..., k], SINGLE[k]) for k in range(len(ODDS))]
    found, _ = mixture(kinds, ODDS)
    graph: nx.DiGraph[int] = nx.DiGraph()
    for place in np.argwhere(choice.edges & (found.edges > LEAST)):
        parent, child = (choice.nodes[one] for one in place)
        graph.add_edge(parent, child, weight=float(found.edges[tuple(place)]) - LEAST)
    tree = nx.maximum_branching(graph) if graph.number_of_edges() else graph
    whole = nx.DiGraph(certain)
    told: dict[int, tuple[int, float]] = {}
    for parent, child in sorted(tree.edges, key=lambda edge: -graph.edges[edge]["weight"]):
        whole.add_nodes_from((parent, child))
        if not nx.has_path(whole, child, parent):
            whole.add_edge(parent, child)
            told[child] = parent, min(1.0, graph.edges[parent, child]["weight"] + LEAST)
    return told
