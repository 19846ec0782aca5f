"""The directed tree of fine-tunes: the branching of most expected right edges, over a distribution of all trees.

The distribution is log-linear in the signals of edges and roots (`kinship.heritage.signals`), for each of two kinds of
families; sums over all forests are determinants (directed matrix-tree theorem), and probabilities of edges their
gradients. Edmonds' algorithm (networkx) on what those exceed `LEAST` by is minimum Bayes risk; a model none of whose
parents does is a root, whose ancestor is not here. The weights of the signals were fitted on families grown with known
truth.
"""

import math
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
    "place": (-1.353, -1.353),
    "between": (3.057, 3.057),
    "beyond": (-0.224, -0.224),
    "offshoot": (-4.849, -4.849),
    "overshoot": (8.522, 8.522),
    "offshoot_plain": (-1.169, -1.169),
    "overshoot_plain": (-6.996, -6.996),
    "astride": (-0.927, -0.927),
    "bridge": (0.855, 0.855),
    "frozen": (4.644, 4.644),
    "kept": (4.271, 4.271),
    "kept_most": (1.14, 1.14),
    "elsewhere": (-8.791, -8.791),
    "shorter": (0.746, 0.746),
    "longer": (2.578, -2.928),
    "even": (1.136, 2.353),
    "from_base": (3.035, 3.035),
    "rooted": (1.362, 1.362),
    "lengthened": (-0.604, 1.442),
    "not_base": (-6.624, -6.624),
    "few": (8.493, 8.493),
}
# For a family that has one root, where that is not known to be the base: its founder is here.
SINGLE = (5.255, 5.255)
# Log odds of the kinds, other things being equal.
ODDS = (0.0, -1.178)
# An edge is told if its probability is more. Told edges count in the F1 if they are right oftener than half the F1.
LEAST = 0.45
# Without the base a sibling that moved little looks like it. Where no row tells either, by having decayed since, no
# edge is surer than this.
UNSURE = 0.85
# Where 49 in 50 of the true edges that weights were fitted on lie; of edges that lie elsewhere one is the less sure, by
# a factor of e for each `STRANGE` outside.
FAMILIAR = {
    "between": (-0.1, 1.0),
    "offshoot": (0.0, 0.43),
    "overshoot": (0.0, 0.19),
    "offshoot_plain": (0.0, 0.38),
    "overshoot_plain": (0.0, 0.44),
    "elsewhere": (0.0, 0.05),
}
STRANGE = 0.1
# A score counts as at most so much below the best one of the same node: what is less likely does not matter.
FAR = 25.0


@dataclass(frozen=True)
class Forests:
    """``log_total`` (...): log of the sum over forests. ``edges`` (..., n, n), ``roots`` (..., n), ``single`` (...):
    probabilities. They are the gradient of ``log_total`` with respect to what `forests` was given.
    """

    log_total: Float64
    edges: Float64
    roots: Float64
    single: Float64


def forests(edges: Float64, roots: Float64, single: float | Float64 = 0.0) -> Forests:
    """The distribution given scores of (parent, child) ``edges`` (..., n, n), of ``roots`` (..., n), and ``single``
    (...) of having one root.

    Minus infinity is what cannot be; of each node's column and root something can. Cost: n^3.

    >>> none = -np.inf
    >>> two = forests(np.array([[none, 0.0], [0.0, none]]), np.zeros(2))  # a parent of b, b of a, or two roots
    >>> round(np.exp(two.log_total)), two.edges.round(2).tolist(), round(float(two.single), 2)
    (3, [[0.0, 0.33], [0.33, 0.0]], 0.67)
    """
    best = np.maximum(edges.max(-2), roots)
    weights = np.where(np.isfinite(edges), np.exp(np.maximum(edges - best[..., None, :], -FAR)), 0.0)
    starts = np.where(np.isfinite(roots), np.exp(np.maximum(roots - best, -FAR)), 0.0)
    unit = np.eye(roots.shape[-1])
    laplacian = unit * weights.sum(-2)[..., None, :] - weights

    any_number = laplacian + unit * starts[..., None, :]
    log_any, inverse = np.linalg.slogdet(any_number)[1], np.linalg.inv(any_number)
    kept = np.diagonal(inverse, axis1=-2, axis2=-1)
    edges_any = weights * (kept[..., None, :] - np.swapaxes(inverse, -2, -1))
    roots_any = starts * kept

    one_root = laplacian
    one_root[..., 0, :] = starts
    log_one = np.linalg.slogdet(one_root)[1]
    forced = (~np.isfinite(edges).any(-2)).sum(-1)
    possible = (forced <= 1) & (log_one >= log_any - FAR)
    inverse = np.linalg.inv(np.where(possible[..., None, None], one_root, unit))
    kept, lost = np.diagonal(inverse, axis1=-2, axis2=-1).copy(), np.swapaxes(inverse, -2, -1).copy()
    kept[..., 0], lost[..., 0, :] = 0.0, 0.0  # what the first row held is not there
    edges_one, roots_one = weights * (kept[..., None, :] - lost), starts * inverse[..., :, 0]

    # All forests count once, those of one root exp(single) times: once more exp(single) - 1 times.
    share = np.where(possible, np.minimum(1.0, np.exp(log_one - log_any)), 0.0)
    more = share * np.expm1(single)
    return Forests(
        log_any + best.sum(-1) + np.log1p(more),
        (edges_any + more[..., None, None] * edges_one) / (1 + more)[..., None, None],
        (roots_any + more[..., None] * roots_one) / (1 + more)[..., None],
        (share + more) / (1 + more),
    )


def mixture(kinds: Forests, odds: Float64) -> tuple[Forests, Float64]:
    """Where it is not known which of ``kinds``, the first axis of all, holds: forests under each, times ``exp(odds)``
    of it; and its chance (kinds, ...).

    >>> two = forests(np.full((2, 1, 1), -np.inf), np.array([[0.0], [np.log(3)]]))
    >>> mixture(two, np.zeros(2))[1].round(2).tolist()
    [0.25, 0.75]
    """
    logs = kinds.log_total + odds.reshape(-1, *[1] * (kinds.log_total.ndim - 1))
    most = logs.max(0)
    chances = np.exp(logs - most)
    total = most + np.log(chances.sum(0))
    chances = chances / chances.sum(0)
    edges, roots = (chances[..., None, None] * kinds.edges).sum(0), (chances[..., None] * kinds.roots).sum(0)
    return Forests(total, edges, roots, (chances * kinds.single).sum(0)), chances


def edge_scores(values: Float64) -> Float64:
    """Of ordered pairs, from their signals (..., len(NAMES)), by kind of family (..., 2)."""
    scores: Float64 = values @ np.array([WEIGHTS[name] for name in NAMES])
    return scores


def root_scores(values: Float64) -> Float64:
    """Of models, from their signals (..., len(ROOTS)), by kind of family (..., 2)."""
    scores: Float64 = values @ np.array([WEIGHTS[name] for name in ROOTS])
    return scores


def base_unknown(roots: Float64) -> NDArray[np.bool_]:
    """Whether no model of a family is known to be its base, from signals of its models (..., m, len(ROOTS))."""
    return np.asarray(~(roots[..., ROOTS.index("not_base")] > 0).any(-1))


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


def distribution(choice: Options, edges: Float64, roots: Float64, single: float | Float64) -> Forests:
    """Of all trees of ``choice``, from scores of edges (..., m, m), of roots (..., m), and of having one root (...)."""
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
    single = np.array(SINGLE) * base_unknown(roots[nodes])
    kinds = distribution(choice, np.moveaxis(edges, -1, 0), np.moveaxis(founding, -1, 0), single)
    told = best_tree(choice, mixture(kinds, np.array(ODDS))[0].edges, certain)
    unknown = bool(base_unknown(roots[nodes]))
    return {
        child: (parent, confidence(probability, values[parent, child], unknown))
        for child, (parent, probability) in told.items()
    }


def confidence(probability: float, values: Float64, unknown: bool) -> float:
    """How sure one is of an edge of that ``probability`` and signals (len(NAMES),); ``unknown``: the base is not known.

    >>> nothing = np.zeros(len(NAMES))
    >>> round(confidence(0.99, nothing, False), 2), round(confidence(0.99, nothing, True), 2)
    (0.99, 0.84)
    """
    told = dict(zip(NAMES, values.tolist(), strict=True))
    strange = sum(max(low - told[name], told[name] - high, 0.0) for name, (low, high) in FAMILIAR.items())
    most = UNSURE if unknown and told["shorter"] <= 0 else 1.0
    return LEAST + (probability - LEAST) * (most - LEAST) / (1 - LEAST) * math.exp(-strange / STRANGE)


def best_tree(
    choice: Options, probabilities: Float64, certain: Sequence[tuple[int, int]]
) -> dict[int, tuple[int, float]]:
    """The branching of most expected right edges, as `branch` has it, from ``probabilities`` (m, m) of edges."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    for place in np.argwhere(choice.edges & (probabilities > LEAST)):
        parent, child = (choice.nodes[one] for one in place)
        graph.add_edge(parent, child, weight=float(probabilities[tuple(place)]) - LEAST)
    tree = nx.maximum_branching(graph) if graph.number_of_edges() else graph
    whole = nx.DiGraph(certain)
    told: dict[int, tuple[int, float]] = {}
    for parent, child in sorted(tree.edges, key=lambda edge: -graph.edges[edge]["weight"]):
        whole.add_nodes_from((parent, child))
        if not nx.has_path(whole, child, parent):
            whole.add_edge(parent, child)
            told[child] = parent, min(1.0, graph.edges[parent, child]["weight"] + LEAST)
    return told
