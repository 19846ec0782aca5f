"""What is said of families below a recovered tree."""

from kinship.heritage.pedigree import Heritage, Node
from service.answers.tree import HeritageEdge, RecoveredHeritage
from service.commands.evidence import describe, relations


def test_related_and_unrelated_come_with_their_p_values_where_those_were_asked_for() -> None:
    nodes = (
        Node("x/a", 0, "x/b", 1e-80),
        Node("x/b", 0, "x/a", 2e-70),
        Node("x/c", 1, "x/a", 0.4321),
        Node("x/d", 2),
    )
    heritage = RecoveredHeritage.of(Heritage(nodes, (), (), 1e-9))
    assert relations(heritage, {node.id: node.id[2:] for node in nodes}) == [
        "Related: 2 models (trained apart: p = 2e-70 at most)",
        "c: unrelated to the others (trained apart from a, the nearest: p = 0.43)",
        "d: unrelated to the others",
    ]
    assert heritage.tree().nodes["x/c"]["independence"] == 0.4321


def test_the_base_of_task_vectors_is_told_in_words() -> None:
    told = {"method": "task_arithmetic", "weight": 0.864, "base": "family/base"}
    edge = HeritageEdge(parent="a", child="b", kind="merge", confidence=0.99, evidence=told)
    assert describe(edge, {"family/base": "base"}) == "task_arithmetic, weight 0.864, on base"
