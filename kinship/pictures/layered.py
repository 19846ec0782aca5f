"""A family tree in layers, roots at the top: models under their names, or under numbers that a table explains."""

from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from kinship.pictures.layout import Point, layered_layout
from kinship.pictures.marks import STROKES, Mark
from kinship.pictures.sheet import LINE, MARGIN, SIZE, Sheet, text_width
from kinship.pictures.told import NUMBERS, columns, numbers_of, write_table

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

WIDEST = 9.0  # inches of a picture
WRAPPED, MOST_WRAPPED = 20, 4  # letters of a line of a name below its model, and such lines
NAMED, NUMBERED = 0.17, 0.27  # inches across of models that are named, or have their number in them


class TooWide(Exception):
    """Names, or even numbers, have no room side by side."""


def named_sheet(tree: "Tree", names: Mapping[str, str], top: float, mark: Callable[[str], Mark]) -> Sheet:
    """Each model with its name and score below it, and above it the kinship of its parents, or how sure its descent is.

    ``top``: inches left free above; ``mark``: the sign of a model. Raises `TooWide`.
    """
    told = numbers_of(tree)
    below = {node: _lines(names[node]) + ([told["score"][node]] if node in told.get("score", {}) else [])
             for node in tree}  # fmt: skip
    above = {node: _above(told, node) for node in tree}
    sheet = _layers(tree, below, above, NAMED, top, mark)
    for key in told:
        if key != "score" and len(told) - ("score" in told) == 1:
            sheet.notes.append(f"above a model: {NUMBERS[key]}")
    if "score" in told:
        sheet.notes.append("last line below a model: score")
    return sheet


def numbered_sheet(tree: "Tree", names: Mapping[str, str], top: float, mark: Callable[[str], Mark]) -> Sheet:
    """Each model with its number in it, and below a table of what is known of them. Raises `TooWide`."""
    sheet = _layers(tree, {node: [] for node in tree}, dict.fromkeys(tree, ""), NUMBERED, top, mark)
    rows = [sheet.where[x, y] for y, x in sorted((y, x) for x, y in sheet.where)]
    number = {node: str(place) for place, node in enumerate(rows, 1)}
    for x, y, _, sign in sheet.marks:
        sheet.text(x, y, number[sheet.where[x, y]], ha="center", size=SIZE - 0.5, color=_ink(sign.fill))
    table = columns(tree, names, number)
    wide = sum(column.width for column in table) + 0.3
    sheet.width = max(sheet.width, wide + 2 * MARGIN)
    blocks = max(1, int((sheet.width - MARGIN) / wide))
    most = -(-len(tree) // blocks)
    start = sheet.height + 1.5 * LINE
    for block in range(blocks):
        write_table(sheet, table, rows[block * most : (block + 1) * most], MARGIN + block * wide, start, LINE)
    sheet.height = start + (most + 1.5) * LINE
    return sheet


def _layers(
    tree: "Tree", below: Mapping[str, list[str]], above: Mapping[str, str], size: float, top: float,
    mark: Callable[[str], Mark],
) -> Sheet:  # fmt: skip
    layout = layered_layout(tree)
    left = MARGIN + max(map(text_width, layout.layers)) + 0.15
    wide = {node: max([size, *map(text_width, [*below[node], above[node]])]) + 0.1 for node in tree}
    places = [count + 1 for count in layout.places]
    inside = max(places[int(y)] * wide[node] for node, (_, y) in layout.nodes.items())
    inside = max(inside, max(places) * 0.12)
    if left + inside > WIDEST:
        raise TooWide
    sheet = Sheet(max(left + inside, 6.5))
    inside = sheet.width - left
    rows: list[tuple[float, float, float]] = []  # of each layer: where it begins, the middle of its models, its end
    y = top
    for level, name in enumerate(layout.layers):
        members = [node for node, place in layout.nodes.items() if place[1] == level]
        middle = y + (LINE if any(above[node] for node in members) else 0.0) + size / 2
        end = middle + size / 2 + LINE * max(len(below[node]) for node in members) + 0.03
        rows.append((y, middle, end))
        sheet.text(MARGIN, middle, name, color="0.35")
        crossing = sum(1 for route in layout.edges.values() if any(place[1] == level for place in route[:-1]))
        y = end + min(1.1, 0.32 + 0.02 * crossing)
    at = {node: (left + x * inside, rows[int(level)][1]) for node, (x, level) in layout.nodes.items()}
    over = {node: size / 2 + (LINE if above[node] else 0.0) for node in tree}
    under = {node: size / 2 + LINE * len(below[node]) for node in tree}
    for (parent, child), route in layout.edges.items():
        points = _route(route, rows, under[parent], over[child])
        stroke = STROKES[tree.edges[parent, child]["kind"]]
        sheet.strokes.append(([(left + x * inside, y) for x, y in points], stroke))
    for node, (x, y) in at.items():
        sheet.marks.append((x, y, size, mark(node)))
        sheet.where[x, y] = node
        if above[node]:
            sheet.text(x, y - size / 2 - LINE / 2, above[node], ha="center", color="0.3")
        for line, text in enumerate(below[node]):
            sheet.text(x, y + size / 2 + (line + 0.55) * LINE, text, ha="center")
    sheet.height = rows[-1][2] + LINE / 2
    return sheet


def _route(route: list[Point], rows: list[tuple[float, float, float]], under: float, over: float) -> list[Point]:
    """Where an edge runs: straight down past what is written at models, aslant between layers only.

    under: inches from the middle of the parent to the end of what is below it; over: from the top of what is above the
    child to its middle.
    """
    (x, level), *between, (last, target) = route
    points = [(x, rows[int(level)][1] + under), (x, rows[int(level)][2])]
    for x, passed in between:
        points += [(x, rows[int(passed)][0]), (x, rows[int(passed)][2])]
    return [*points, (last, rows[int(target)][0]), (last, rows[int(target)][1] - over)]


def _lines(name: str) -> list[str]:
    """A name in lines, broken where its parts end."""
    parts = wrap(name.replace("/", "/ ").replace("-", "- "), WRAPPED)
    lines = [part.replace("/ ", "/").replace("- ", "-") for part in parts]
    return lines if len(lines) <= MOST_WRAPPED else [*lines[: MOST_WRAPPED - 1], "…" + lines[-1]]


def _above(told: Mapping[str, Mapping[str, str]], node: str) -> str:
    """Of two numbers each says what it is."""
    found = {key: texts[node] for key, texts in told.items() if key != "score" and node in texts}
    several = len(told) - ("score" in told) > 1
    return ", ".join(f"{key} {text}" if several else text for key, text in found.items())


def _ink(fill: Any) -> str:
    """Black or white, whichever is read better on ``fill``."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(fill)
    return "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
