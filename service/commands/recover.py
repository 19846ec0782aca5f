"""`kinship tree --recover`: descent read from the weights themselves."""

from typing import TYPE_CHECKING

from kinship.names import short_names
from service.console import byte_progress, console, notes, print_json

if TYPE_CHECKING:
    from kinship.heritage.pedigree import Edge, Heritage


def run(models: list[str], base: str | None, *, allow_pickle: bool, as_json: bool) -> None:
    """Recover the heritage of ``models`` and print it: a tree and a table of edges, or one JSON object."""
    from kinship.heritage import recover

    with byte_progress("Reading weights", quiet=as_json) as progress:
        heritage = recover(models, base, progress, allow_pickle=allow_pickle)
    if as_json:
        print_json(heritage.to_dict())
        return
    ids = [node.id for node in heritage.nodes]
    names = dict(zip(ids, short_names(ids), strict=True))
    _print_trees(heritage, names)
    _print_edges(heritage, names)
    for one in heritage.latent:
        children = ", ".join(names[child] for child in one.children)
        console().print(f"Not here: an ancestor of {children} ({one.reason}).", markup=False)
    for note in heritage.notes:
        notes().print(f"Note: {note}", markup=False)


def _print_trees(heritage: "Heritage", names: dict[str, str]) -> None:
    """Each family as a tree; a model with several parents hangs under its first, the others are named."""
    from rich.tree import Tree

    below: dict[str, list[Edge]] = {}
    parents: dict[str, list[Edge]] = {}
    for edge in heritage.edges:
        parents.setdefault(edge.child, []).append(edge)
    for edges in parents.values():
        first = max(edges, key=lambda edge: (edge.evidence.get("weight", 0), edge.confidence))
        below.setdefault(first.parent, []).append(first)

    def grow(tree: Tree, id: str) -> None:
        for edge in below.get(id, []):
            others = [names[other.parent] for other in parents[edge.child] if other is not edge]
            also = f" with {', '.join(others)}" if others else ""
            label = f"{names[edge.child]}  [{edge.kind}{also}, {edge.confidence:.2f}]"
            grow(tree.add(_plain(label)), edge.child)

    for family in sorted({node.family for node in heritage.nodes}):
        members = [node.id for node in heritage.nodes if node.family == family]
        if len(members) == 1:
            console().print(f"{names[members[0]]}: unrelated to the others", markup=False)
            continue
        tree = Tree(f"family {family + 1}")
        for id in members:
            if id not in parents:
                grow(tree.add(_plain(names[id])), id)
        console().print(tree)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_edges(heritage: "Heritage", names: dict[str, str]) -> None:
    if not heritage.edges:
        console().print("No descent found.")
        return
    from rich.table import Table

    table = Table("parent", "child", "kind", "confidence", "evidence")
    for edge in heritage.edges:
        told = ", ".join(f"{key} {_short(value)}" for key, value in edge.evidence.items() if _short(value))
        row = (names[edge.parent], names[edge.child], edge.kind, f"{edge.confidence:.2f}", told)
        table.add_row(*map(_plain, row))
    console().print(table)


def _short(value: object) -> str:
    """A value in few letters; nothing for tables within tables, which JSON has."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if isinstance(value, dict) else str(value)
