"""Family trees as text."""

from xml.etree import ElementTree

import networkx as nx
import pytest

from kinship.trees.formats import families, to_graphml, to_lines, to_mermaid
from kinship.trees.graph import add_descent, add_member, placed


@pytest.fixture
def tree() -> "nx.DiGraph[str]":
    found: nx.DiGraph[str] = nx.DiGraph()
    add_member(found, "org/base", given=True, licence="mit")
    add_descent(found, "org/base", "org/a", "finetune", "weights", confidence=0.75)
    add_descent(found, "org/base", 'org/"b"', "lora", "weights", evidence={"rank": 4})
    add_descent(found, "org/a", "org/c", "merge", "lineage.json", kinship=0.5)
    add_descent(found, 'org/"b"', "org/c", "merge", "lineage.json")
    add_member(found, "org/c", given=True, score=0.5)
    add_member(found, 'org/"b"', given=True)
    add_member(found, "else/alone", given=True)
    return placed(found)


def test_graphml_comes_back(tree: "nx.DiGraph[str]") -> None:
    again = nx.parse_graphml(to_graphml(tree))
    assert set(again.edges) == set(tree.edges)
    assert again.edges["org/base", "org/a"]["confidence"] == 0.75
    assert again.edges["org/base", 'org/"b"']["evidence"] == '{"rank": 4}'
    assert again.nodes["org/base"]["licence"] == "mit"
    assert "score" not in again.nodes["org/base"]


def test_graphml_of_names_that_xml_cannot_hold(tree: "nx.DiGraph[str]") -> None:
    add_descent(tree, "org/base", "bad\x07<name>&", "merge", "here")
    ElementTree.fromstring(to_graphml(tree))


def test_mermaid(tree: "nx.DiGraph[str]") -> None:
    text = to_mermaid(tree)
    assert text.splitlines()[0] == "flowchart TD"
    assert '    m0 -->|"finetune, confidence 0.75"| m1' in text
    assert '    m2["&quot;b&quot;"]' in text
    assert '    m3["c · 0.500"]' in text
    assert "    class m1 named" in text
    assert text.count("-->") == 4


def test_lines_for_a_terminal(tree: "nx.DiGraph[str]") -> None:
    assert list(to_lines(tree)) == [
        "org/base  (mit)",
        "├─ org/a  (finetune, confidence 0.75; not given)",
        '│  └─ org/c  (merge, kinship 0.50; with org/"b"; score 0.5000)',
        '└─ org/"b"  (lora)',
        "else/alone",
    ]


def test_ancestors_that_must_have_existed_look_different(tree: "nx.DiGraph[str]") -> None:
    add_member(tree, "(ancestor 1)", latent=True, note="they are siblings", generation=0)
    add_descent(tree, "(ancestor 1)", "else/alone", "unknown", "weights")
    assert list(to_lines(tree))[-2:] == ["(ancestor 1)  (they are siblings)", "└─ else/alone"]
    assert '    m5(["(ancestor 1)"])\n' in to_mermaid(tree)
    assert "    m5 -.-> m4\n" in to_mermaid(tree)
    assert nx.parse_graphml(to_graphml(tree)).nodes["(ancestor 1)"]["latent"] is True


def test_every_model_has_one_line() -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    for child in range(1, 3000):  # deeper than Python recurses
        add_descent(tree, str(child - 1), str(child), "finetune", "here")
        if child % 7 == 0:
            add_descent(tree, str(child // 2), str(child), "merge", "here")
    assert len(list(to_lines(placed(tree)))) == 3000


def test_families(tree: "nx.DiGraph[str]") -> None:
    assert families(tree) == [["org/base", "org/a", 'org/"b"', "org/c"], ["else/alone"]]
