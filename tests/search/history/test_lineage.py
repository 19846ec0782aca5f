import os
import subprocess
import sys
from itertools import combinations, pairwise
from typing import Any

import networkx as nx
import pytest

from kinship.pictures.layout import Layout, layered_layout
from search.history.lineage import lineage_of
from tests.search.runs import Scene, failing
from tests.search.trees import individual, random_export


def test_lineage_of_a_run(scene: Scene) -> None:
    scene.run("run", evaluator=scene.evaluator(failing("1-2")))
    export = scene.export("run")
    graph = lineage_of(export)
    assert set(graph) == {i["id"] for i in export["individuals"]}
    born = {(parent, i["id"]) for i in export["individuals"] for parent in i["parents"]}
    founders = {i["id"] for i in export["individuals"] if i["role"] == "founder"}
    assert set(graph.edges) == born | {("base", founder) for founder in founders}
    assert {graph.edges["base", founder]["kind"] for founder in founders} == {"finetune"}
    assert nx.is_directed_acyclic_graph(graph)
    assert {graph.in_degree(node) for node in graph} == {0, 1, 2}
    assert graph.nodes["1-2"]["score"] is None
    for i in export["individuals"]:
        if i["id"] not in ("base", "1-2"):
            node = graph.nodes[i["id"]]
            assert node["score"] == i["scores"]["search"]["value"]
            assert node["kinship"] == i["kinship_of_parents"]
            assert (node["generation"], node["role"]) == (i["generation"], i["role"])


def layer_of(facts: dict[str, Any]) -> str:
    """The base has a layer of its own."""
    if facts["role"] == "base":
        return "base"
    return f"generation {facts['generation']}" if facts["generation"] else "founders"


def check_layout(graph: Any, layout: Layout) -> int:
    """Check all that a layout promises; returns how many edges skip a generation."""
    assert set(layout.nodes) == set(graph)
    assert set(layout.edges) == set(graph.edges)
    for node, (x, y) in layout.nodes.items():
        assert 0 < x < 1
        assert layout.layers[int(y)] == layer_of(graph.nodes[node])
    assert len(set(layout.nodes.values())) == len(layout.nodes)
    for (parent, child), route in layout.edges.items():
        assert route[0] == layout.nodes[parent]
        assert route[-1] == layout.nodes[child]
        assert [y for _, y in route] == list(range(int(route[0][1]), int(route[-1][1]) + 1))
        assert not set(route[1:-1]) & set(layout.nodes.values())
    return sum(len(route) > 2 for route in layout.edges.values())


@pytest.mark.parametrize("seed", range(20))
def test_a_layout_keeps_its_promises(seed: int) -> None:
    graph = lineage_of(random_export(seed))
    layout = layered_layout(graph)
    assert check_layout(graph, layout) > 0
    assert layered_layout(lineage_of(random_export(seed))) == layout


def crossings(layout: Layout) -> int:
    """Pairs of edge pieces between the same two layers that cross."""
    pieces = [pair for route in layout.edges.values() for pair in pairwise(route)]
    return sum(
        (one[0][0] - other[0][0]) * (one[1][0] - other[1][0]) < 0
        for one, other in combinations(pieces, 2)
        if one[0][1] == other[0][1]
    )


def test_ordering_takes_crossings_away() -> None:
    # Children listed in the reverse order of their parents: every pair of edges crosses until they are ordered.
    founders = [individual(f"f{i}", 0) for i in range(6)]
    children = [individual(f"1-{i}", 1, f"f{5 - i}", score=0.1) for i in range(6)]
    graph = lineage_of({"base": "base", "individuals": founders + children})
    assert crossings(layered_layout(graph, sweeps=0)) == 15
    assert crossings(layered_layout(graph)) == 0
    graphs = [lineage_of(random_export(seed)) for seed in range(10)]
    assert sum(crossings(layered_layout(graph)) for graph in graphs) < 0.7 * sum(
        crossings(layered_layout(graph, sweeps=0)) for graph in graphs
    )


def test_a_layout_of_founders_alone() -> None:
    graph = lineage_of({"base": "base", "individuals": [individual("base", 0), individual("a", 0), individual("b", 0)]})
    layout = layered_layout(graph)
    assert check_layout(graph, layout) == 0
    assert {node: y for node, (_, y) in layout.nodes.items()} == {"base": 0.0, "a": 1.0, "b": 1.0}


def test_a_layout_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "from search.history.lineage import lineage_of; from kinship.pictures.layout import layered_layout;"
        "from tests.search.trees import random_export;"
        "print(layered_layout(lineage_of(random_export(3))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "3", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(layered_layout(lineage_of(random_export(3))))
