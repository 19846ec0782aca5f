"""A family tree as one HTML file that needs nothing else: pan, zoom, search, colours, and a card for each model."""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from kinship.checkpoints.references import short_names
from kinship.trees.formats import edge_text, families
from kinship.trees.graph import as_dict
from kinship.trees.licences import Finding

if TYPE_CHECKING:
    from kinship.trees.graph import Tree
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kinship.output import output_file

if TYPE_CHECKING:
    from kinship.trees.graph import Tree
    from kinship.trees.licences import Finding


def tree_page(tree: "Tree", title: str, findings: Sequence[Finding] = ()) -> str:
    """The page; about 0.5 MB, of which the drawing library is nearly all."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("service"), autoescape=True, undefined=StrictUndefined)
    found = [finding.to_dict() for finding in findings]
    content = _content(tree) | {"findings": found}
    static = files("service") / "static"
    return environment.get_template("tree.html").render(
        title=title,
        findings=found,
        # Nothing in the data may end the element that it is in.
        data=json.dumps(content, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c"),
        cytoscape=(static / "cytoscape.min.js").read_text(encoding="utf-8"),
        dagre=(static / "cytoscape-dagre.min.js").read_text(encoding="utf-8"),
        script=(static / "tree.js").read_text(encoding="utf-8"),
    )


def _content(tree: "Tree") -> dict[str, Any]:
    """Nodes and edges with what the page adds: names, families by their first member, who is best, words at edges."""
    content = as_dict(tree)
    family = {id: group[0] for group in families(tree) for id in group}
    several = len(set(family.values())) > 1
    scores = [node["score"] for node in content["nodes"] if node.get("score") is not None]
    for node, name in zip(content["nodes"], short_names(list(tree)), strict=True):
        node.setdefault("given", True)
        node["name"] = name
        if several:
            node.setdefault("family", family[node["id"]])
        node["best"] = bool(scores) and node.get("score") == max(scores)
    for edge in content["edges"]:
        edge["text"] = edge_text(edge)
    return content


FORMATS = (".html", ".png", ".svg", ".json", ".graphml", ".mmd")


def save_tree(
    tree: "Tree", path: Path, title: str, content: Mapping[str, Any], findings: "Sequence[Finding]", *, force: bool
) -> None:
    """Write ``tree`` to ``path``, of one of `FORMATS`; ``content`` is the documented object that .json holds."""
    if path.suffix in (".png", ".svg"):
        from kinship.pictures.family import family_figure
        from service.pages.figures import save_figure

        save_figure(family_figure(tree, title), path, force=force)
        return
    with output_file(path, force=force) as partial:
        partial.write_text(_text(tree, path.suffix, title, content, findings), encoding="utf-8")


def _text(tree: "Tree", suffix: str, title: str, content: Mapping[str, Any], findings: "Sequence[Finding]") -> str:
    match suffix:
        case ".html":
            return tree_page(tree, title, findings)
        case ".graphml":
            from kinship.trees.formats import to_graphml

            return to_graphml(tree)
        case ".mmd":
            from kinship.trees.formats import to_mermaid

            return to_mermaid(tree)
        case _:
            import json

            return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
