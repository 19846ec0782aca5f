"""The directed tree of fine-tunes: the likeliest branching over calibrated odds of every ordered pair.

Edmonds' algorithm (networkx) on log odds against having no parent here: a model whose best parent has odds below
`LEAST_ODDS` is a root, whose ancestor is not here. Weights of the signals: `kinship.heritage.calibration`.
"""

from collections.abc import Sequence

import networkx as nx
import numpy as np

from kinship.gram import Float64
from kinship.heritage.calibration import LEAST_ODDS, log_odds


def branch(
    values: Float64,
    children: Sequence[int],
    parents: Sequence[int],
    certain: Sequence[tuple[int, int]],
    base: int | None,
) -> dict[int, tuple[int, float]]:
    """Parent and confidence of those ``children`` that have one: from signals ``values`` (n, n, signals).

    certain: edges (parent, child) known already; no cycle is made with them. base: has no parent. Confidence is that of
    this parent against all others, none, and the two in the other order, the rest of the tree being as it is.
    """
    odds = log_odds(values)
    graph: nx.DiGraph[int] = nx.DiGraph()
    for child in children:
        for parent in parents:
            price = float(odds[parent, child]) - LEAST_ODDS
            if child not in (parent, base) and values[parent, child].any() and price > 0:
                graph.add_edge(parent, child, weight=price)
    found = nx.maximum_branching(graph) if graph.number_of_edges() else graph
    chosen: dict[int, int] = {}
    whole = nx.DiGraph(certain)
    for parent, child in sorted(found.edges, key=lambda edge: -odds[edge]):
        whole.add_nodes_from((parent, child))
        if not nx.has_path(whole, child, parent):
            whole.add_edge(parent, child)
            chosen[child] = parent
    told = {}
    for child, parent in chosen.items():
        below = nx.descendants(whole, child)
        rivals = [float(odds[one, child]) for one in parents if one not in below | {child, parent}]
        told[child] = parent, _confidence(odds, child, parent, rivals, chosen, parent in children and parent != base)
    return told


def _confidence(
    odds: Float64, child: int, parent: int, rivals: list[float], chosen: dict[int, int], may_swap: bool
) -> float:
    others = [0.0, *rivals]
    if may_swap:
        above = chosen.get(parent)
        moved = 0.0 if above is None else float(odds[above, child] - odds[above, parent])
        others.append(moved + float(odds[child, parent]))
    return float(1 / (1 + np.exp(np.clip(np.array(others) - odds[parent, child], -30, 30)).sum()))
