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

    layers: the generation of each, ascending; those that have nobody are left out.
    """

    nodes: dict[str, Point]
    edges: dict[tuple[str, str], list[Point]]
    layers: tuple[int, ...]


def layered_layout(tree: "Tree", sweeps: int = 8) -> Layout:
    """Layers by generation, the first at the top; edges that skip generations run between the nodes they pass.

    Such an edge holds a place in every layer it crosses, and each layer is ordered by the mean place of its neighbours
    above, then below, in turn, which keeps crossings few (Sugiyama et al. 1981). Time O(sweeps * edges * generations).
    """
    routed: nx.DiGraph[Any] = nx.DiGraph()
    generations = sorted({tree.nodes[node]["generation"] for node in tree})
    level: dict[Any, int] = {node: generations.index(tree.nodes[node]["generation"]) for node in tree}
    routed.add_nodes_from(level)
    routes: dict[tuple[str, str], list[Any]] = {}
    for parent, child in tree.edges:
        stops = [(parent, child, between) for between in range(level[parent] + 1, level[child])]
        level |= {stop: stop[2] for stop in stops}
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
    return Layout(
        {node: point[node] for node in tree},
        {edge: [point[stop] for stop in stops] for edge, stops in routes.items()},
        tuple(generations),
    )


def _spread(index: int, count: int) -> float:
    return (index + 1) / (count + 1)
