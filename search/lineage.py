"""Recorded descent as a directed acyclic graph, parents pointing to children, and where to draw its nodes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

if TYPE_CHECKING:
    Graph = nx.DiGraph[str]


Point = tuple[float, float]


def shown(export: Mapping[str, Any], most: int) -> list[str]:
    """Ids of the individuals worth showing, in the order proposed: everyone, or of a larger run about ``most``.

    These are base and founders, then the best so far of each generation from the last one back, each with its
    ancestors, then the best others.
    """
    people = {individual["id"]: individual for individual in export["individuals"]}
    if len(people) <= most:
        return list(people)
    chosen = {id for id, individual in people.items() if individual["generation"] == 0}
    queue = list(export["best_so_far"])
    while queue and len(chosen) < most:
        id = queue.pop()
        if id not in chosen:
            chosen.add(id)
            queue += reversed(people[id]["parents"])
    scored = [id for id, individual in people.items() if "search" in individual["scores"] and id not in chosen]
    scored.sort(key=lambda id: (-people[id]["scores"]["search"]["value"], id))
    chosen.update(scored[: max(0, most - len(chosen))])
    return [id for id in people if id in chosen]


def lineage_of(export: Mapping[str, Any], most: int | None = None) -> "Graph":
    """The lineage in a run's export: nodes carry generation, role, score and the kinship of their parents.

    ``most``: of a larger run only what is `shown`; an edge then needs both its ends.
    """
    graph: Graph = nx.DiGraph()
    wanted = set(shown(export, most or len(export["individuals"])))
    for individual in export["individuals"]:
        if individual["id"] == export["base"] or individual["id"] not in wanted:
            continue
        score = individual["scores"].get("search", {}).get("value")
        graph.add_node(
            individual["id"],
            generation=individual["generation"],
            role=individual["role"],
            score=score,
            kinship=individual["kinship_of_parents"],
        )
        parents = [parent for parent in individual["parents"] if parent in graph]
        graph.add_edges_from((parent, individual["id"]) for parent in parents)
    return graph


def colour_range(graph: "Graph") -> tuple[float, float]:
    """Scores between which a picture's colours run: from the 10th percentile, so that one bad model does not leave
    all others alike, to the best.
    """
    scores = [graph.nodes[node]["score"] for node in graph if graph.nodes[node]["score"] is not None]
    return (float(np.quantile(scores, 0.1)), max(scores)) if scores else (0.0, 1.0)


@dataclass(frozen=True)
class Layout:
    """Where to draw a lineage: ``nodes`` (x, y) with x in 0..1 and y the layer, ``edges`` as polylines.

    layers: the generation of each, ascending; those that have nobody are left out.
    """

    nodes: dict[str, Point]
    edges: dict[tuple[str, str], list[Point]]
    layers: tuple[int, ...]


def layered_layout(graph: "Graph", sweeps: int = 8) -> Layout:
    """Layers by generation, founders at the top; edges that skip generations run between the nodes they pass.

    Such an edge holds a place in every layer it crosses, and each layer is ordered by the mean place of its neighbours
    above, then below, in turn, which keeps crossings few (Sugiyama et al. 1981). Time O(sweeps * edges * generations).
    """
    routed: nx.DiGraph[Any] = nx.DiGraph()
    generations = sorted({graph.nodes[node]["generation"] for node in graph})
    level: dict[Any, int] = {node: generations.index(graph.nodes[node]["generation"]) for node in graph}
    routed.add_nodes_from(level)
    routes: dict[tuple[str, str], list[Any]] = {}
    for parent, child in graph.edges:
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
        {node: point[node] for node in graph},
        {edge: [point[stop] for stop in stops] for edge, stops in routes.items()},
        tuple(generations),
    )


def _spread(index: int, count: int) -> float:
    return (index + 1) / (count + 1)
