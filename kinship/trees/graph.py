"""A family tree as a directed acyclic graph, parents pointing to children, whatever it was learnt from.

Nodes carry what is known of a model: ``generation``, and perhaps ``family``, ``score``, ``licence``, ``recipe``,
``role``, ``tags`` and ``given`` (false for a parent that is only named). Edges carry ``kind`` (one of `KINDS`),
``sources`` (where the descent is told), and perhaps ``kinship``, ``confidence`` and ``evidence``. The graph itself may
say what among the models given is none (``no_models``: why, by reference).
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import networkx as nx

from kinship.errors import InvalidConfig

if TYPE_CHECKING:
    Tree = nx.DiGraph[str]

KINDS = ("finetune", "lora", "merge", "cast", "quantized", "resized", "duplicate", "unknown")


def add_member(tree: "Tree", id: str, **facts: Any) -> None:
    """Add a model, or what is newly known of it; what is known already stays, and so does what is None here."""
    if id not in tree:
        tree.add_node(id, given=False)
    node = tree.nodes[id]
    for key, value in facts.items():
        if value is not None and (node.get(key) is None or (key == "given" and value)):
            node[key] = value


def add_descent(tree: "Tree", parent: str, child: str, kind: str, source: str, **facts: Any) -> None:
    """Add that ``child`` descends from ``parent``, as ``source`` says; sources that agree are kept together.

    Where two name different kinds, the first that is not ``unknown`` stays. Models are added where they are not there.
    """
    add_member(tree, parent)
    add_member(tree, child)
    if not tree.has_edge(parent, child):
        tree.add_edge(parent, child, kind=kind, sources=[])
    edge = tree.edges[parent, child]
    if source not in edge["sources"]:
        edge["sources"].append(source)
    if edge["kind"] == "unknown":
        edge["kind"] = kind
    for key, value in facts.items():
        if value is not None and edge.get(key) is None:
            edge[key] = value


def united(trees: "Iterable[Tree]") -> "Tree":
    """All that several trees tell, earlier ones first where they differ."""
    found: Tree = nx.DiGraph()
    for tree in trees:
        found.graph.update(tree.graph)
        for id, facts in tree.nodes(data=True):
            add_member(found, id, **facts)
        for parent, child, facts in tree.edges(data=True):
            rest = {key: value for key, value in facts.items() if key not in ("kind", "sources")}
            for source in facts["sources"]:
                add_descent(found, parent, child, facts["kind"], source, **rest)
    return found


def placed(tree: "Tree") -> "Tree":
    """The tree with a ``generation`` for each node that has none: one more than its latest parent's, 0 for roots.

    Raises `InvalidConfig` for a tree in which someone is an ancestor of itself.
    """
    try:
        order = list(nx.topological_sort(tree))
    except nx.NetworkXUnfeasible:
        circle = [parent for parent, _ in nx.find_cycle(tree)]
        raise InvalidConfig(
            f"These models are said to descend from each other in a circle: {' -> '.join([*circle, circle[0]])}.",
            hint="One of their model cards or lineage files is wrong.",
        ) from None
    for id in order:
        parents = [tree.nodes[parent]["generation"] for parent in tree.predecessors(id)]
        if tree.nodes[id].get("generation") is None:
            tree.nodes[id]["generation"] = 1 + max(parents, default=-1)
    return tree


def outline(tree: "Tree") -> "Iterator[tuple[str, str | None, tuple[bool, ...]]]":
    """Every model once, each below one of its parents: the last of them in generation, then in order.

    Yields (id, that parent; None for a root, and for the model and each of its ancestors but the root whether it is the
    last child).
    """
    place = {id: index for index, id in enumerate(tree)}
    main = {
        id: max(tree.predecessors(id), key=lambda parent: (tree.nodes[parent]["generation"], -place[parent]))
        for id in tree
        if tree.in_degree(id)
    }
    below: dict[str, list[str]] = {}
    for child, parent in main.items():
        below.setdefault(parent, []).append(child)
    stack: list[tuple[str, tuple[bool, ...]]] = [(id, ()) for id in list(tree)[::-1] if id not in main]
    while stack:
        id, last = stack.pop()
        yield id, main.get(id), last
        children = sorted(below.get(id, []), key=place.__getitem__)
        stack += [(child, (*last, index == len(children) - 1)) for index, child in enumerate(children)][::-1]


def as_dict(tree: "Tree") -> dict[str, Any]:
    """``nodes`` (each with its ``id``) and ``edges`` (each ``parent``, ``child``) as plain data."""
    return {
        "nodes": [{"id": id, **facts} for id, facts in tree.nodes(data=True)],
        "edges": [{"parent": parent, "child": child, **facts} for parent, child, facts in tree.edges(data=True)],
    }
