"""Family trees: what several sources tell, put together."""

import networkx as nx
import pytest

from kinship.errors import InvalidConfig
from kinship.trees.graph import add_descent, add_member, as_dict, placed, united


def test_sources_agree_and_the_first_kind_that_says_something_stays() -> None:
    cards, weights = nx.DiGraph(), nx.DiGraph()
    add_member(cards, "child", given=True, licence="mit")
    add_descent(cards, "base", "child", "unknown", "README.md")
    add_member(weights, "child", licence="apache-2.0", score=0.5)
    add_member(weights, "base", given=True)
    add_descent(weights, "base", "child", "lora", "weights", confidence=0.9)
    add_descent(weights, "base", "child", "finetune", "weights", confidence=0.1)
    tree = united([cards, weights])
    assert tree.edges["base", "child"] == {"kind": "lora", "sources": ["README.md", "weights"], "confidence": 0.9}
    assert tree.nodes["child"] == {"given": True, "licence": "mit", "score": 0.5}
    assert tree.nodes["base"]["given"] is True
    assert cards.nodes["base"]["given"] is False  # what went in is as it was
    assert cards.edges["base", "child"]["sources"] == ["README.md"]


def test_generations_count_from_the_latest_parent() -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    for parent, child in [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("e", "d")]:
        add_descent(tree, parent, child, "merge", "here")
    add_member(tree, "e", generation=7)
    placed(tree)
    assert {id: tree.nodes[id]["generation"] for id in tree} == {"a": 0, "b": 1, "c": 2, "d": 8, "e": 7}


def test_nobody_is_an_ancestor_of_itself() -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    for parent, child in [("a", "b"), ("b", "c"), ("c", "a")]:
        add_descent(tree, parent, child, "merge", "here")
    with pytest.raises(InvalidConfig, match=r"in a circle: . -> . -> . -> ."):
        placed(tree)


def test_plain_data() -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    add_descent(tree, "a", "b", "merge", "here", kinship=0.5)
    assert as_dict(tree) == {
        "nodes": [{"id": "a", "given": False}, {"id": "b", "given": False}],
        "edges": [{"parent": "a", "child": "b", "kind": "merge", "sources": ["here"], "kinship": 0.5}],
    }
