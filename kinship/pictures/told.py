"""What a picture of a family tells of each model beside its place: as numbers at the model, and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinship.pictures.sheet import GAP, LINE, Sheet, text_width

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

MOST_PARENTS = 6  # of a model that a table names
NUMBERS = {
    "kinship": "kinship of the parents",
    "confidence": "confidence of the descent",
    "score": "score",
}
"""What numbers there may be at a model, in words."""


@dataclass(frozen=True)
class Column:
    """A column of a table: ``cells`` by model, numbers to the right."""

    header: str
    cells: Mapping[str, str]
    number: bool = False

    @property
    def width(self) -> float:
        """Inches, with the gap to the next."""
        return max(map(text_width, [self.header, *self.cells.values()])) + GAP


def numbers_of(tree: "Tree") -> dict[str, dict[str, str]]:
    """For each of `NUMBERS` that is known of anyone, its text by model; confidence of several parents as a range."""
    texts: dict[str, dict[str, str]] = {key: {} for key in NUMBERS}
    for node, facts in tree.nodes(data=True):
        edges = [edge for *_, edge in tree.in_edges(node, data=True)]
        if facts.get("score") is not None:
            texts["score"][node] = f"{facts['score']:.3f}"
        related = [each["kinship"] for each in (facts, *edges) if each.get("kinship") is not None]
        if related:  # the same at every edge: it is of the parents
            texts["kinship"][node] = f"{related[0]:.2f}"
        sure = [edge["confidence"] for edge in edges if edge.get("confidence") is not None]
        if sure:
            low, high = f"{min(sure):.2f}", f"{max(sure):.2f}"
            texts["confidence"][node] = low if low == high else f"{low} to {high}"
    return {key: told for key, told in texts.items() if told}


def columns(tree: "Tree", names: Mapping[str, str], number: Mapping[str, str]) -> list[Column]:
    """The table of all models: number, name, what it was made from, and what else is known of anyone."""
    found = [Column("no.", number, number=True), Column("model", names)]
    if tree.number_of_edges():
        found.append(Column("made from", {node: _made_from(tree, node, number) for node in tree}))
    headers = {"kinship": "parents' kinship"}
    return found + [Column(headers.get(key, key), told, number=True) for key, told in numbers_of(tree).items()]


def write_table(sheet: Sheet, table: Sequence[Column], rows: Sequence[str], x: float, y: float, pitch: float) -> None:
    """Write the ``rows`` of ``table``, ``pitch`` inches apart, below headers of which the middle is at ``y``."""
    for column in table:
        end = x + column.width - GAP
        place = {"x": end, "ha": "right"} if column.number else {"x": x, "ha": "left"}
        sheet.text(y=y, text=column.header, color="0.35", style="italic", **place)  # type: ignore[arg-type]
        for line, node in enumerate(rows):
            if text := column.cells.get(node):
                sheet.text(y=y + LINE / 3 + (line + 1) * pitch, text=text, **place)  # type: ignore[arg-type]
        x += column.width


def _made_from(tree: "Tree", node: str, number: Mapping[str, str]) -> str:
    parents: dict[str, list[str]] = {}
    for parent in tree.predecessors(node):
        parents.setdefault(tree.edges[parent, node]["kind"], []).append(number[parent])
    texts = []
    for kind, found in parents.items():
        found.sort(key=int)
        listed = ", ".join(found[:MOST_PARENTS])
        more = f" and {len(found) - MOST_PARENTS} more" if len(found) > MOST_PARENTS else ""
        texts.append(f"{'child' if kind == 'unknown' else kind} of {listed}{more}")
    return "; ".join(texts)
