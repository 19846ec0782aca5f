"""What is handed down in a family."""

import networkx as nx
import pytest

from kinship.trees.graph import add_descent, add_member
from kinship.trees.licences import findings


def family(licences: dict[str, str | None], *edges: str, tags: dict[str, list[str]] | None = None) -> "nx.DiGraph[str]":
    tree: nx.DiGraph[str] = nx.DiGraph()
    for id, licence in licences.items():
        add_member(tree, id, given=True, licence=licence, tags=(tags or {}).get(id))
    for edge in edges:
        add_descent(tree, edge[0], edge[1], "merge", "here")
    return tree


@pytest.mark.parametrize(
    ("licences", "found"),
    [
        ({"a": "apache-2.0", "b": "mit", "c": "llama3"}, None),
        ({"a": "apache-2.0", "b": None, "c": None}, None),
        ({"a": "cc-by-nc-4.0", "b": "cc-by-nc-4.0", "c": "cc-by-nc-4.0"}, None),
        (
            {"a": "cc-by-nc-4.0", "b": "mit", "c": "apache-2.0"},
            "c is under apache-2.0; its ancestors are under cc-by-nc",
        ),
        ({"a": "cc-by-nc-4.0", "b": "mit", "c": None}, "c names no licence; its ancestors are under cc-by-nc-4.0 (a)"),
        ({"a": "gemma", "b": "llama3", "c": "llama3"}, "different terms: gemma (a) and llama3 (b)"),
        ({"a": "other", "b": "mit", "c": "mit"}, None),
    ],
)
def test_terms_bind_children(licences: dict[str, str | None], found: str | None) -> None:
    told = findings(family(licences, "ac", "bc"))
    assert [finding.kind for finding in told] == ([] if found is None else ["licence"])
    if found is not None:
        assert found in told[0].text


def test_terms_bind_grandchildren_whatever_the_parent_says() -> None:
    told = findings(family({"a": "cc-by-nc-4.0", "b": "mit", "c": "mit"}, "ab", "bc"))
    assert [(finding.id, finding.because) for finding in told] == [("b", ("a",)), ("c", ("a",))]


def test_contamination_is_inherited() -> None:
    tree = family(dict.fromkeys("abcd", "mit"), "ab", "bc", tags={"b": ["merge", "Contaminated"]})
    assert [(finding.kind, finding.id, finding.because) for finding in findings(tree)] == [
        ("contamination", "b", ("b",)),
        ("contamination", "c", ("b",)),
    ]


def test_parents_that_nobody_has() -> None:
    tree = family({"b": "mit"}, "ab")
    (finding,) = findings(tree)
    assert (finding.kind, finding.id, finding.because) == ("missing", "a", ("b",))
    assert finding.to_dict()["because"] == ["b"]
    add_member(tree, "a", latent=True)  # nobody can give an ancestor that is only inferred
    assert not findings(tree)
