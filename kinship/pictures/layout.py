"""Where to draw the models of a family tree."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

Point = tuple[float, float]


def colour_range(tree: "Tree") -> tuple[float, float]:
    """Scores between which a picture's colours run: from the 10th percentile, so that one bad model does not leave
    all others alike, to the best.
    """
    scores = [facts["score"] for _, facts in tree.nodes(data=True) if facts.get("score") is not None]
    return (float(np.quantile(scores, 0.1)), max(scores)) if scores else (0.0, 1.0)


@dataclass(frozen=True)
class Layout:
    """Where to draw a family tree: ``nodes`` (x, y) with x in 0..1 and y the layer, ``edges`` as polylines.

    layers: the name of each, from the top. places: how many stand side by side in each, trunks that pass included.
    """

    nodes: dict[str, Point]
    edges: dict[tuple[str, str], list[Point]]
    layers: tuple[str, ...]
    places: tuple[int, ...]


def layered_layout(tree: "Tree", sweeps: int = 8) -> Layout:
    """Layers by generation, the base above all others; edges that skip generations run between the nodes they pass.

    Those of one parent run together, as a trunk that holds one place in every layer it crosses. Each layer is ordered
    by the mean place of its neighbours above, then below, in turn, which keeps crossings few (Sugiyama et al. 1981).
    Time O(sweeps * edges * generations).
    """
    routed: nx.DiGraph[Any] = nx.DiGraph()
    ranks = {node: -1 if facts.get("role") == "base" else facts["generation"] for node, facts in tree.nodes(data=True)}
    generations = sorted(set(ranks.values()))
    level: dict[Any, int] = {node: generations.index(rank) for node, rank in ranks.items()}
    routed.add_nodes_from(level)
    routes: dict[tuple[str, str], list[Any]] = {}
    for parent, child in tree.edges:
        stops = [(parent, between) for between in range(level[parent] + 1, level[child])]
        level |= {stop: stop[1] for stop in stops}
        routes[parent, child] = [parent, *stops, child]
        nx.add_path(routed, routes[parent, child])
    layers: dict[int, list[Any]] = {}
    for node in routed:
        layers.setdefault(level[node], []).append(node)
    place = {node: _spread(index, len(layer)) for layer in layers.values() for index, node in enumerate(layer)}
    for sweep in range(sweeps):
        neighbours = routed.predecessors if sweep % 2 == 0 else routed.successors
        for generation in sorted(layers, reverse=bool(sweep % 2)):
            layer = layers[generation]
            means = {}
            for node in layer:
                near = [place[other] for other in neighbours(node)]
                means[node] = sum(near) / len(near) if near else place[node]
            layer.sort(key=lambda node: (means[node], str(node)))
            place |= {node: _spread(index, len(layer)) for index, node in enumerate(layer)}
    point = {node: (place[node], float(level[node])) for node in routed}
    bred = any(facts.get("role") == "founder" for _, facts in tree.nodes(data=True))
    return Layout(
        {node: point[node] for node in tree},
        {edge: [point[stop] for stop in stops] for edge, stops in routes.items()},
        tuple(_name(generation, bred=bred) for generation in generations),
        tuple(len(layers[index]) for index in range(len(generations))),
    )


def _name(generation: int, *, bred: bool) -> str:
    if generation < 0:
        return "base"
    return f"generation {generation}" if generation else "founders" if bred else "roots"


def _spread(index: int, count: int) -> float:
    return (index + 1) / (count + 1)
