"""What `kinship tree --recover` prints below the tree: each edge with its evidence."""

from collections import Counter
from typing import TYPE_CHECKING

from kinship.names import short_names
from service.console import console, notes

if TYPE_CHECKING:
    from kinship.heritage.pedigree import Heritage


def print_edges(heritage: "Heritage") -> None:
    """A table of the edges, and what else there is to say."""
    ids = [node.id for node in heritage.nodes]
    names = dict(zip(ids, short_names(ids), strict=True))
    _print_table(heritage, names)
    sizes = Counter(node.family for node in heritage.nodes)
    for node in heritage.nodes:
        if sizes[node.family] == 1:
            console().print(f"{names[node.id]}: unrelated to the others", markup=False)
    for one in heritage.latent:
        children = ", ".join(names[child] for child in one.children)
        console().print(f"Not here: an ancestor of {children} ({one.reason}).", markup=False)
    for note in heritage.notes:
        notes().print(f"Note: {note}", markup=False)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_table(heritage: "Heritage", names: dict[str, str]) -> None:
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
