"""From what was recovered to a tree that can be shown."""

from kinship.heritage.pedigree import Edge, Heritage, Latent, Node, recovered_tree


def test_everything_recovered_is_in_the_tree() -> None:
    heritage = Heritage(
        (Node("a", 0), Node("b", 0), Node("c", 0), Node("alone", 1)),
        (Edge("a", "b", "lora", 0.75, {"rank": 4}),),
        (Latent(0, ("a", "c"), "they are siblings"),),
        1e-9,
    )
    tree = recovered_tree(heritage)
    assert dict(tree.nodes["alone"]) == {"given": True, "family": "family 2", "generation": 0}
    assert tree.nodes["(ancestor 1)"]["latent"] is True
    assert tree.nodes["(ancestor 1)"]["given"] is False
    assert set(tree.edges) == {("a", "b"), ("(ancestor 1)", "a"), ("(ancestor 1)", "c")}
    assert tree.edges["a", "b"] == {
        "kind": "lora", "sources": ["weights"], "confidence": 0.75, "evidence": {"rank": 4},
    }  # fmt: skip
    assert tree.nodes["b"]["generation"] == 2
