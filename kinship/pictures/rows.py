"""A family tree in rows: a model a line, children below a parent of theirs, and beside each all that is known of it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kinship.pictures.marks import STROKES, Mark, Stroke
from kinship.pictures.sheet import LINE, MARGIN, Sheet
from kinship.pictures.told import columns, write_table
from kinship.trees.graph import outline

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

PITCH = 1.15 * LINE
TRUNK = Stroke("0.75")  # shared by children of several kinds
STEP, DEEPEST = 0.24, 3.5  # inches from parent to child, and of the deepest family


def rows_sheet(tree: "Tree", names: Mapping[str, str], top: float, mark: Callable[[str], Mark]) -> Sheet:
    """As `to_lines` orders them; further parents of a model are told by their numbers.

    ``top``: inches left free above; ``mark``: the sign of a model.
    """
    order = list(outline(tree))
    rows = [node for node, *_ in order]
    depth = max(len(last) for *_, last in order)
    step = min(STEP, DEEPEST / max(1, depth))
    table = columns(tree, names, {node: str(number) for number, node in enumerate(rows, 1)})
    beside = 2 * MARGIN + depth * step
    sheet = Sheet(max(6.5, beside + sum(column.width for column in table) + MARGIN))
    at = {node: (MARGIN + 0.06 + len(last) * step, top + LINE / 2 + LINE / 3 + row * PITCH)
          for row, (node, _, last) in enumerate(order, 1)}  # fmt: skip
    for node, parent, _ in order:
        if parent is not None:
            (left, above), (x, y) = at[parent], at[node]
            sheet.strokes.append(([(left, above), (left, y)], TRUNK))
            sheet.strokes.append(([(left, y), (x, y)], STROKES[tree.edges[parent, node]["kind"]]))
    for node, (x, y) in at.items():
        sheet.marks.append((x, y, 0.1, mark(node)))
    write_table(sheet, table, rows, beside, top + LINE / 2, PITCH)
    sheet.height = top + (len(rows) + 1.5) * PITCH
    sheet.notes.append("numbers in a row are those of other rows")
    return sheet
