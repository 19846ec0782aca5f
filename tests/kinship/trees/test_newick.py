"""Distance trees, against trees whose path lengths are known."""

import re
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinship.errors import InvalidConfig
from kinship.trees.dendrogram import neighbour_joining, newick


def paths(text: str) -> dict[frozenset[str], float]:
    """The path length between every two leaves of a Newick text."""
    graph: nx.Graph[object] = nx.Graph()
    stack: list[object] = []
    leaves, inner, last = [], 0, None
    for quoted, bare, mark, length in re.findall(
        r"'((?:[^']|'')*)'|([\w.+-]+)(?![\w.+-]*')|([(),;])|:(-?[\d.e+-]+)", _split(text)
    ):
        if mark == "(":
            stack.append(inner)
            inner += 1
        elif mark == ")":
            last = stack.pop()
        elif length:
            graph.add_edge(last, stack[-1], weight=float(length))
        elif not mark:
            last = quoted.replace("''", "'") if quoted else bare
            leaves.append(last)
    found = dict(nx.all_pairs_bellman_ford_path_length(graph))
    return {frozenset((str(a), str(b))): found[a][b] for a, b in combinations(leaves, 2)}


def _split(text: str) -> str:
    return text.replace(":", " :")


def random_tree(seed: int, count: int) -> tuple[np.ndarray, list[str]]:
    """Distances between the leaves of a tree with branches of 0.1 to 1."""
    draw = np.random.default_rng(seed)
    graph: nx.Graph[str] = nx.Graph()
    graph.add_edge("m0", "m1", weight=draw.uniform(0.1, 1))
    for leaf in range(2, count):
        one, two, facts = list(graph.edges(data=True))[draw.integers(graph.number_of_edges())]
        graph.remove_edge(one, two)
        graph.add_edge(one, f"in{leaf}", weight=facts["weight"] / 2)
        graph.add_edge(f"in{leaf}", two, weight=facts["weight"] / 2)
        graph.add_edge(f"in{leaf}", f"m{leaf}", weight=draw.uniform(0.1, 1))
    ids = [f"m{leaf}" for leaf in range(count)]
    found = dict(nx.all_pairs_dijkstra_path_length(graph))
    return np.array([[found[a][b] for b in ids] for a in ids]), ids


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_neighbour_joining_finds_the_tree_that_distances_come_from(seed: int, count: int) -> None:
    distances, ids = random_tree(seed, count)
    found = paths(neighbour_joining(distances, ids))
    for a, b in combinations(range(count), 2):
        assert found[frozenset((ids[a], ids[b]))] == pytest.approx(distances[a, b], abs=1e-4)


def test_upgma_ends_all_leaves_at_one_height() -> None:
    from scipy.cluster.hierarchy import cophenet, linkage
    from scipy.spatial.distance import squareform

    distances, ids = random_tree(3, 9)
    joined = linkage(squareform(distances, checks=False), "average")
    found = paths(newick(joined, ids))
    heights = squareform(cophenet(joined))
    for a, b in combinations(range(9), 2):
        assert found[frozenset((ids[a], ids[b]))] == pytest.approx(2 * heights[a, b], rel=1e-4)


def test_names_are_quoted() -> None:
    text = neighbour_joining(np.ones((3, 3)) - np.eye(3), ["org/a b", "it's", "plain-1.5"])
    assert text == "('org/a b':0.5,'it''s':0.5,plain-1.5:0.5);\n"


@pytest.mark.parametrize(
    "distances", [[[0, np.nan], [np.nan, 0]], [[0, 1], [1, 0], [1, 1]], [[0, np.inf, 1], [1, 0, 1], [1, 1, 0]]]
)
def test_distances_that_are_none_are_refused(distances: list[list[float]]) -> None:
    with pytest.raises(InvalidConfig, match="finite numbers"):
        neighbour_joining(np.array(distances), "abc"[: len(distances)])


def test_one_model_is_no_tree() -> None:
    with pytest.raises(InvalidConfig, match="at least two"):
        neighbour_joining(np.zeros((1, 1)), ["a"])
