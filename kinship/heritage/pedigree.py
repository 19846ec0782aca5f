"""What was recovered: models with their families, edges with evidence and confidence, ancestors not here; as a tree."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx

from kinship.trees.graph import add_descent, add_member, placed

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

SCHEMA = "kinship.heritage/2"
SOURCE = "weights"


@dataclass(frozen=True)
class Node:
    """A model by its reference as given. ``family``: a number; models of different families are unrelated.

    nearest: the model whose weights are the likest, of its family, or of all where it is alone in it. independence: the
    p-value of the two having been trained apart (`kinship.heritage.independence`). None where it was not asked for.
    """

    id: str
    family: int
    nearest: str | None = None
    independence: float | None = None


@dataclass(frozen=True)
class Edge:
    """``child`` was made from ``parent``: ``kind`` of `kinship.trees.graph`; a merge has an edge from each parent.

    confidence: probability that this edge is right (0-1). A ``duplicate`` has no direction. evidence: plain values.
    """

    parent: str
    child: str
    kind: str
    confidence: float
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Latent:
    """An ancestor that must have existed and was not given: of ``children``, for the ``reason``."""

    family: int
    children: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Heritage:
    """A forest with merges. ``false_link_rate``: chance, by the normal tail, that two unrelated models are linked."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    latent: tuple[Latent, ...]
    false_link_rate: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON object: see docs/formats.md."""
        return {
            "schema": SCHEMA,
            "nodes": [asdict(node) for node in self.nodes],
            "edges": [asdict(edge) for edge in self.edges],
            "latent": [asdict(one) | {"children": list(one.children)} for one in self.latent],
            "false_link_rate": self.false_link_rate,
            "notes": list(self.notes),
        }


def recovered_tree(heritage: "Heritage") -> "Tree":
    """Nodes and edges of ``heritage``; ancestors that are not among the models are nodes with ``latent`` true."""
    tree: Tree = nx.DiGraph()
    for node in heritage.nodes:
        beside: dict[str, Any] = {"nearest": node.nearest, "independence": node.independence}
        add_member(tree, node.id, given=True, family=f"family {node.family + 1}", **beside)
    for number, ancestor in enumerate(heritage.latent, 1):
        id = f"(ancestor {number})"
        add_member(tree, id, latent=True, family=f"family {ancestor.family + 1}", note=ancestor.reason)
        for child in ancestor.children:
            add_descent(tree, id, child, "unknown", SOURCE)
    for edge in heritage.edges:
        facts = {"confidence": edge.confidence, "evidence": edge.evidence}
        add_descent(tree, edge.parent, edge.child, edge.kind, SOURCE, **facts)
    return placed(tree)
