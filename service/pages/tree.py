"""A family tree as one HTML file that needs nothing else: pan, zoom, search, colours, and a card for each model."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from kinship.checkpoints.references import short_names
from kinship.outside import in_picture, json_text
from kinship.pictures.marks import STROKES, mark_of
from kinship.trees.formats import edge_text, families
from kinship.trees.graph import as_dict
from service.answers.tree import Descent, findings_of
from service.pages.environment import page_environment

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

SHAPES = {"o": "ellipse", "s": "rectangle", "h": "hexagon", "D": "diamond"}


def tree_page(answer: Descent, title: str) -> str:
    """The page; about 0.5 MB, of which the drawing library is nearly all."""
    found = [finding.content() for finding in findings_of(answer)]
    content = tree_content(answer.tree()) | {"findings": found}
    static = files("service") / "static"
    return (
        page_environment()
        .get_template("tree.html")
        .render(
            title=title,
            findings=found,
            # Nothing in the data may end the element that it is in.
            data=json_text(content).replace("<", "\\u003c"),
            cytoscape=(static / "vendor/cytoscape.min.js").read_text(encoding="utf-8"),
            dagre=(static / "vendor/cytoscape-dagre.min.js").read_text(encoding="utf-8"),
            script=(static / "tree.js").read_text(encoding="utf-8"),
        )
    )


def tree_content(tree: "Tree") -> dict[str, Any]:
    """Nodes and edges with what the page adds: names, families by their first member, who is best, words at edges.

    How kinds of models and of descent look is the same as in pictures (`kinship.pictures.marks`).
    """
    content = as_dict(tree)
    family = {id: group[0] for group in families(tree) for id in group}
    several = len(set(family.values())) > 1
    scores = [node["score"] for node in content["nodes"] if node.get("score") is not None]
    for node, name in zip(content["nodes"], short_names(list(tree)), strict=True):
        node.setdefault("given", True)
        node["name"] = in_picture(name)
        if several:
            node.setdefault("family", family[node["id"]])
        node["best"] = bool(scores) and node.get("score") == max(scores)
        node["shape"] = SHAPES[mark_of(node).shape]
    for edge in content["edges"]:
        edge["text"] = edge_text(edge)
    content["kinds"] = {
        kind: {"colour": stroke.colour, "width": stroke.width, "dash": [] if stroke.dash == "-" else stroke.dash[1]}
        for kind, stroke in STROKES.items()
        if any(edge["kind"] == kind for edge in content["edges"])
    }
    return content
