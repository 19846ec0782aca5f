"""The directed tree of fine-tunes: the branching of most expected right edges, over a distribution of all trees.

The distribution is log-linear in the signals of edges and roots (`kinship.heritage.forests`), for each of two kinds of
families; probabilities of edges are its marginals. Edmonds' algorithm (networkx) on what those exceed `LEAST` by is
minimum Bayes risk; a model none of whose parents does is a root, whose ancestor is not here. Weights of the signals:
`kinship.heritage.calibration`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from kinship.gram import Float64
from kinship.heritage.calibration import LEAST, ODDS, SINGLE, edge_scores, root_scores
from kinship.heritage.forests import Forests, forests, mixture


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
    base: int | None,
) -> Options:
    """Arguments are those of `branch`."""
    nodes = tuple(sorted({*children, *parents}))
    at = {model: place for place, model in enumerate(nodes)}
    known = nx.DiGraph(certain)
    edges, sure = np.zeros((2, len(nodes), len(nodes)), dtype=bool)
    for child in children:
        if child != base:
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
    base: int | None,
) -> dict[int, tuple[int, float]]:
    """Parent and its probability of those ``children`` that have one: from `kinship.heritage.signals.signals`.

    values: (n, n, signals) of pairs; roots: (n, signals) of models. certain: edges (parent, child) known already; no
    cycle is made with them. base: has no parent.
    """
    choice = options(values, children, parents, certain, base)
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
