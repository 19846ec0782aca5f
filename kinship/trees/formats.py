"""Family trees as text: GraphML, Mermaid, and lines for a terminal."""

import io
import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import networkx as nx

from kinship.checkpoints.references import short_names
from kinship.outside import in_picture, in_xml, json_text
from kinship.trees.dendrogram import branches
from kinship.trees.graph import outline

if TYPE_CHECKING:
    from kinship.trees.graph import Tree


def to_graphml(tree: "Tree") -> str:
    """GraphML, which graph tools read; lists and mappings in it are JSON texts, and what is unknown is left out."""
    plain: Tree = nx.DiGraph()
    for id, facts in tree.nodes(data=True):
        plain.add_node(in_xml(id), **_flat(facts))
    for parent, child, facts in tree.edges(data=True):
        plain.add_edge(in_xml(parent), in_xml(child), **_flat(facts))
    buffer = io.BytesIO()
    nx.write_graphml_xml(plain, buffer)
    return buffer.getvalue().decode()


def to_mermaid(tree: "Tree") -> str:
    """A Mermaid flowchart, which Hub and GitHub draw in a README file.

    Dashed: parents that are only named. Rounded, with dotted lines to their children: ancestors that must have existed.
    """
    number = {id: f"m{index}" for index, id in enumerate(tree)}
    lines = ["flowchart TD"]
    for id, name in zip(tree, short_names(list(tree)), strict=True):
        score = tree.nodes[id].get("score")
        text = _quoted(name if score is None else f"{name} · {score:.3f}")
        lines.append(f'    {number[id]}(["{text}"])' if tree.nodes[id].get("latent") else f'    {number[id]}["{text}"]')
    for parent, child, facts in tree.edges(data=True):
        line = "-.->" if tree.nodes[parent].get("latent") else f'-->|"{_quoted(edge_text(facts))}"|'
        lines.append(f"    {number[parent]} {line} {number[child]}")
    named = [number[id] for id, facts in tree.nodes(data=True) if not facts.get("given", True)]
    if named:
        lines += ["    classDef named stroke-dasharray: 4 3", f"    class {','.join(named)} named"]
    return "\n".join(lines) + "\n"


def to_lines(tree: "Tree") -> Iterator[str]:
    """The tree for a terminal: children below a parent of theirs, indented; a further parent is named at the child.

    Each model has one line; a child of several parents is below the last of them in generation, then in order.
    """
    for id, main, last in outline(tree):
        others = [parent for parent in tree.predecessors(id) if parent != main]
        inferred = main is not None and tree.nodes[main].get("latent")
        about = [edge_text(tree.edges[main, id])] if main is not None and not inferred else []
        about += [f"with {', '.join(others)}"] if others else []
        score = tree.nodes[id].get("score")
        about += [f"score {score:.4f}"] if score is not None else []
        about += [str(tree.nodes[id]["licence"])] if tree.nodes[id].get("licence") else []
        absent = tree.nodes[id].get("note", "not here") if tree.nodes[id].get("latent") else "not given"
        about += [] if tree.nodes[id].get("given", True) else [absent]
        yield f"{branches(last)}{id}" + (f"  ({'; '.join(about)})" if about else "")


def edge_text(facts: dict[str, Any]) -> str:
    """What stands at an edge: the kind of descent, kinship of the parents and confidence where they are known.

    >>> edge_text({"kind": "merge", "sources": ["lineage.json"], "kinship": 0.25})
    'merge, kinship 0.25'
    """
    told = ["descent" if facts["kind"] == "unknown" else str(facts["kind"])]
    told += [f"{key} {facts[key]:.2f}" for key in ("kinship", "confidence") if facts.get(key) is not None]
    return ", ".join(told)


def _flat(facts: dict[str, Any]) -> dict[str, str | int | float | bool]:
    return {
        key: value if isinstance(value, bool | int | float) else _text(value)
        for key, value in facts.items()
        if value is not None
    }


def _text(value: Any) -> str:
    return in_xml(value if isinstance(value, str) else json_text(value))


def _quoted(text: str) -> str:
    """Text between the quotation marks of Mermaid, which knows entities, formulas, Markdown and directives."""
    escaped = escape(re.sub("[#$%`]", lambda match: f"#{ord(match[0])};", in_picture(text)), quote=False)
    return escaped.replace('"', "&quot;")


def families(tree: "Tree") -> Sequence[Sequence[str]]:
    """The models that hang together, in the order of the tree's nodes."""
    place = {id: index for index, id in enumerate(tree)}
    groups = [sorted(group, key=place.__getitem__) for group in nx.weakly_connected_components(tree)]
    return sorted(groups, key=lambda group: place[group[0]])
