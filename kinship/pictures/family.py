"""A family tree as a picture, for papers."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kinship.checkpoints.references import short_names
from kinship.outside import captions, in_picture
from kinship.pictures.canvas import picture
from kinship.pictures.layered import TooWide, named_sheet, numbered_sheet
from kinship.pictures.layout import colour_range
from kinship.pictures.marks import Mark, descent_signs, mark_of, model_signs
from kinship.pictures.plots import COLOURS
from kinship.pictures.rows import rows_sheet
from kinship.pictures.sheet import LINE, MARGIN, Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kinship.trees.graph import Tree


@picture
def family_figure(tree: "Tree", title: str = "") -> "Figure":
    """Who was made from whom, with a legend; nothing in it overlaps, however many models there are.

    A small family, or one with short names, is drawn in layers, roots at the top. Of larger ones, those with many
    merges have numbers in such layers and a table below them; others have a model a row, with the table beside it.
    Colour is the score where there is one.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    names = dict(zip(tree, captions(short_names(list(tree))), strict=True))
    low, high = colour_range(tree)
    norm, colours = Normalize(low, high), colormaps[COLOURS]

    def mark(node: str) -> Mark:
        score = tree.nodes[node].get("score")
        return mark_of(tree.nodes[node], "white" if score is None else colours(norm(score)))

    sheet = _sheet(tree, names, MARGIN + 2.2 * LINE, mark)
    sheet.text(MARGIN, MARGIN + LINE / 2, in_picture(title or "Family tree"), size=10, weight="bold")
    sheet.legend("Models", [*model_signs(tree), *((None, note) for note in sheet.notes)])
    if tree.number_of_edges():
        sheet.legend("Descent, from parents down to children", descent_signs(tree))
    if any(facts.get("score") is not None for _, facts in tree.nodes(data=True)):
        sheet.scale("Colour: score", low, high)
    return sheet.drawn()


def _sheet(tree: "Tree", names: dict[str, str], top: float, mark: Callable[[str], Mark]) -> Sheet:
    further = tree.number_of_edges() - sum(1 for node in tree if tree.in_degree(node))
    shapes = [named_sheet] if tree.number_of_edges() else []
    shapes += [numbered_sheet] if further > len(tree) / 3 else []
    for shape in shapes:
        try:
            return shape(tree, names, top, mark)
        except TooWide:
            continue
    return rows_sheet(tree, names, top, mark)
