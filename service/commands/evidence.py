"""What `kinship tree --recover` prints below the tree: each edge with its evidence."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kinship.checkpoints.references import short_names
from service.console import console, notes

if TYPE_CHECKING:
    from service.answers.tree import HeritageEdge, RecoveredHeritage


def print_edges(heritage: "RecoveredHeritage") -> None:
    """A table of the edges, and what else there is to say."""
    ids = [node.id for node in heritage.nodes]
    names = dict(zip(ids, short_names(ids), strict=True))
    _print_table(heritage, names)
    for line in relations(heritage, names):
        console().print(line)
    for one in heritage.latent:
        children = ", ".join(names[child] for child in one.children)
        console().print(f"An ancestor of {children}: {one.reason}.")
    for note in heritage.notes:
        notes().print(f"Note: {note}")


def relations(heritage: "RecoveredHeritage", names: Mapping[str, str]) -> list[str]:
    """Who is related and who is not, a line for each family, with the p-values of having been trained apart."""
    sizes = Counter(node.family for node in heritage.nodes)
    lines = []
    for family, size in sizes.items():
        kin = [node for node in heritage.nodes if node.family == family]
        known = [node.independence for node in kin if node.independence is not None]
        if size > 1 and known:
            lines.append(f"Related: {size} models (trained apart: p {_p_value(max(known))} at most)")
        elif size == 1:
            apart, name = kin[0].independence, names[kin[0].id]
            told = (
                f" (trained apart from {names[kin[0].nearest]}, the nearest: p {_p_value(apart)})"
                if (apart is not None and kin[0].nearest is not None)
                else ""
            )
            lines.append(f"{name}: unrelated to the others{told}")
    return lines


def _p_value(p: float) -> str:
    """As people write it, after ``p``.

    >>> _p_value(0.4321), _p_value(2e-5), _p_value(3e-88), _p_value(1e-300)
    ('= 0.43', '= 2e-05', '= 3e-88', '< 1e-300')
    """
    return "< 1e-300" if p <= 1e-300 else f"= {p:.2g}"


def _print_table(heritage: "RecoveredHeritage", names: dict[str, str]) -> None:
    if not heritage.edges:
        console().print("No descent found.")
        return
    from rich.table import Table

    table = Table()
    for header in ("parent", "child", "kind", "confidence", "evidence"):
        table.add_column(header, overflow="fold")  # names are never cut
    for edge in heritage.edges:
        table.add_row(names[edge.parent], names[edge.child], edge.kind, f"{edge.confidence:.2f}", describe(edge, names))
    console().print(table)


def describe(edge: "HeritageEdge", names: Mapping[str, str]) -> str:
    """The evidence of an edge in a few words; all of it is in the JSON.

    >>> from service.answers.tree import HeritageEdge
    >>> told = {"relative_change": 0.0712, "longer_matrices": 0.9, "frozen_tensors": 2, "rank": 8}
    >>> describe(HeritageEdge(parent="a", child="b", kind="lora", confidence=0.9, evidence=told), {})
    'moved by 7.1 % of its length, 90 % of matrices longer, 2 tensors frozen, rank 8'
    """
    told = edge.evidence
    words: dict[str, Callable[[Any], str]] = {
        "method": lambda value: str(value),
        "weight": lambda value: f"weight {value:.4g}",
        "t": lambda value: f"t = {value:.4g}",
        "base": lambda value: f"on {names.get(value, value)}" if value else "",
        "factor": lambda value: f"changes times {value:.4g}",
        "kept": lambda value: f"{100 * value:.0f} % of them kept",
        "exact": lambda value: f"{100 * value:.0f} % of numbers to the last bit" if value is not None else "",
        "relative_change": lambda value: f"moved by {100 * value:.1f} % of its length",
        "longer_matrices": lambda value: f"{100 * value:.0f} % of matrices longer",
        "frozen_tensors": lambda value: f"{value} tensors frozen" if value else "",
        "rank": lambda value: f"rank {value}",
        "dtype": lambda value: str(value),
        "bits": lambda value: f"{value} bits",
        "token_rows": lambda value: f"{value[0]} token rows, then {value[1]}",
        "equal_tensors": lambda value: f"{value} tensors equal",
    }
    found = [word(told[key]) for key, word in words.items() if key in told]
    found += [key.replace("_", " ") for key in told if "_by_" in key]
    return ", ".join(one for one in found if one)
