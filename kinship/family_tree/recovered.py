"""A recovered heritage as a family tree."""

from typing import TYPE_CHECKING

import networkx as nx

from kinship.family_tree.graph import add_descent, add_member, placed

if TYPE_CHECKING:
    from kinship.family_tree.graph import Tree
    from kinship.heritage.pedigree import Heritage

SOURCE = "weights"


def recovered_tree(heritage: "Heritage") -> "Tree":
    """Nodes and edges of ``heritage``; ancestors that are not among the models are nodes with ``latent`` true."""
    tree: Tree = nx.DiGraph()
    for node in heritage.nodes:
        add_member(tree, node.id, given=True, family=f"family {node.family + 1}")
    for number, ancestor in enumerate(heritage.latent, 1):
        id = f"(ancestor {number})"
        add_member(tree, id, latent=True, family=f"family {ancestor.family + 1}", note=ancestor.reason)
        for child in ancestor.children:
            add_descent(tree, id, child, "unknown", SOURCE)
    for edge in heritage.edges:
        facts = {"confidence": edge.confidence, "evidence": edge.evidence}
        add_descent(tree, edge.parent, edge.child, edge.kind, SOURCE, **facts)
    return placed(tree)
