"""Family trees to files: the suffix names the format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinship.output import output_file

if TYPE_CHECKING:
    from kinship.trees.graph import Tree
    from kinship.trees.licences import Finding

FORMATS = (".html", ".png", ".svg", ".json", ".graphml", ".mmd")


def save_tree(
    tree: "Tree", path: Path, title: str, content: Mapping[str, Any], findings: "Sequence[Finding]", *, force: bool
) -> None:
    """Write ``tree`` to ``path``, of one of `FORMATS`; ``content`` is the documented object that .json holds."""
    if path.suffix in (".png", ".svg"):
        from kinship.pictures.family import family_figure
        from service.figures import save_figure

        save_figure(family_figure(tree, title), path, force=force)
        return
    with output_file(path, force=force) as partial:
        partial.write_text(_text(tree, path.suffix, title, content, findings), encoding="utf-8")


def _text(tree: "Tree", suffix: str, title: str, content: Mapping[str, Any], findings: "Sequence[Finding]") -> str:
    match suffix:
        case ".html":
            from service.tree_page import tree_page

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
