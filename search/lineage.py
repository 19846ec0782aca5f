"""Recorded descent as a directed acyclic graph, parents pointing to children, and where to draw its nodes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import networkx as nx

if TYPE_CHECKING:
    Graph = nx.DiGraph[str]


def lineage_of(export: Mapping[str, Any]) -> "Graph":
    """The lineage in a run's export: nodes carry generation, role and score, edges the kinship of the parents."""
    graph: "Graph" = nx.DiGraph()
    for individual in export["individuals"]:
        if individual["id"] == export["base"]:
            continue
        score = individual["scores"].get("search", {}).get("value")
        graph.add_node(individual["id"], generation=individual["generation"], role=individual["role"], score=score)
        for parent in individual["parents"]:
            graph.add_edge(parent, individual["id"], kinship=individual["kinship_of_parents"])
    return graph


def layered_positions(graph: "Graph", sweeps: int = 8) -> dict[str, tuple[float, float]]:
    """(x, y) of each node: y is the generation (0 at the top), x in 0..1 within it.

    Nodes are ordered by the mean place of their neighbours in the layer above, then below, in turn, which keeps
    crossings few (the barycentre heuristic of Sugiyama et al. 1981). Time O(sweeps * edges).
    """
    layers: dict[int, list[str]] = {}
    for node, generation in ((node, graph.nodes[node]["generation"]) for node in graph):
        layers.setdefault(generation, []).append(node)
    place = {node: _spread(index, len(layer)) for layer in layers.values() for index, node in enumerate(layer)}
    for sweep in range(sweeps):
        neighbours = graph.predecessors if sweep % 2 == 0 else graph.successors
        for generation in sorted(layers, reverse=bool(sweep % 2)):
            layer = layers[generation]
            means = {}
            for node in layer:
                near = [place[other] for other in neighbours(node)]
                means[node] = sum(near) / len(near) if near else place[node]
            layer.sort(key=lambda node: (means[node], node))
            place |= {node: _spread(index, len(layer)) for index, node in enumerate(layer)}
    return {node: (place[node], float(graph.nodes[node]["generation"])) for node in graph}


def _spread(index: int, count: int) -> float:
    return (index + 1) / (count + 1)
