"""A kinship matrix for a terminal of any width: in full, its lower triangle, or the pairs that tell most."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from kinship.checkpoints.references import short_names
from service.terminal import UNCUT, Terminal, styled

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from kinship.measures.matrix import KinshipMatrix

FULL = 7  # models, up to which there is room for both triangles and four decimals
LONGEST = 24  # letters of a name beside its row; longer ones are told below, by number
MOST_PAIRS = 10  # of the closest, and of the farthest, where not even a triangle has room
MOST_IN_TABLE = 60
MOST_GROUPED = 8  # pairs beside each other, by group
_ELSEWHERE = "So many models have no room here as a table: --out FILE.csv or .html has all pairs."
_COLOURS = ("bright_black", "blue", "cyan", "yellow")


def matrix_table(matrix: "KinshipMatrix", width: int) -> "tuple[Table, list[str]]":
    """The matrix in at most ``width`` columns, and lines that tell what its numbers stand for.

    Closer pairs are brighter, the diagonal is dim. Some models: all of it. More: two decimals of the lower triangle,
    names by number where they are long. Too many: the closest pairs and the farthest.
    """
    names = short_names(matrix.ids)
    numbers = [str(number) for number, _ in enumerate(names, 1)]
    if len(names) <= FULL:
        wide = max(map(len, names)) + sum(max(len(name), 7) + 3 for name in names) > width - 2
        rows = [f"{number} {name}" for number, name in zip(numbers, names, strict=True)] if wide else names
        whole = _square(matrix, rows, numbers if wide else names, _cells(matrix, 4))
        if _width(whole, width):
            return whole, []
    if len(names) > MOST_IN_TABLE:
        return _pairs(matrix, names), [_ELSEWHERE]
    long = max(map(len, names)) > LONGEST
    rows = numbers if long else [f"{number} {name}" for number, name in zip(numbers, names, strict=True)]
    lower = [[cell if column <= row else styled("") for column, cell in enumerate(cells)]
             for row, cells in enumerate(_cells(matrix, 2))]  # fmt: skip
    legend = [f"{number}  {name}" for number, name in zip(numbers, names, strict=True)] if long else []
    triangle = _square(matrix, rows, numbers, lower, tight=True)
    if _width(triangle, width):
        return triangle, legend
    return _pairs(matrix, names), [_ELSEWHERE]


def groups_table(groups: "Mapping[str, KinshipMatrix]", by: str, width: int) -> "tuple[Table, list[str]]":
    """Kinship within each group, by label: a column a pair, or mean and range where there are many pairs.

    In at most ``width`` columns; models by number, told below, where pairs of names have no room beside each other.
    """
    names = short_names(next(iter(groups.values())).ids)
    numbers = [str(number) for number, _ in enumerate(names, 1)]
    if math.comb(len(names), 2) > MOST_GROUPED:
        return _groups(groups, by, ["mean", "lowest", "highest"]), []
    named = _groups(groups, by, [f"{one} + {other}" for one, other in combinations(names, 2)])
    if _width(named, width):
        return named, []
    legend = [f"{number}  {name}" for number, name in zip(numbers, names, strict=True)]
    return _groups(groups, by, [f"{one} + {other}" for one, other in combinations(numbers, 2)]), legend


def _groups(groups: "Mapping[str, KinshipMatrix]", by: str, headers: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(title=f"{_title(next(iter(groups.values())))} by {by}", title_justify="left")
    table.add_column(by, overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    for label, matrix in groups.items():
        values = [matrix[pair] for pair in combinations(matrix.ids, 2)]
        if len(values) > MOST_GROUPED:
            known = [value for value in values if not math.isnan(value)] or [math.nan]
            values = [sum(known) / len(known), min(known), max(known)]
        table.add_row(label, *(_figure(matrix, value, 4) for value in values))
    return table


def _square(
    matrix: "KinshipMatrix",
    rows: Sequence[str],
    headers: Sequence[str],
    cells: "list[list[Text]]",
    *,
    tight: bool = False,
) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=_title(matrix), title_justify="left")
    if tight:
        table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.add_column("", no_wrap=True)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for name, row in zip(rows, cells, strict=True):
        table.add_row(name, *row)
    return table


def _pairs(matrix: "KinshipMatrix", names: Sequence[str]) -> "Table":
    import numpy as np
    from rich.table import Table

    one, other = np.tril_indices(len(names), -1)
    values = matrix.values[one, other]
    order = np.argsort(values, kind="stable")  # those without a value last
    order = order[: np.count_nonzero(~np.isnan(values))]
    order = order[::-1] if matrix.spec.higher_is_closer else order
    hidden = max(0, len(order) - 2 * MOST_PAIRS)
    table = Table(title=f"{_title(matrix)}: closest pairs first", title_justify="left")
    table.add_column("pair", overflow="fold")
    table.add_column(matrix.metric, justify="right", no_wrap=True)
    for place in [*order[:MOST_PAIRS], *order[max(MOST_PAIRS, len(order) - MOST_PAIRS) :]]:
        if hidden and place == order[-MOST_PAIRS]:
            table.add_row(f"... {hidden:,} more ...", "")
        table.add_row(f"{names[other[place]]} + {names[one[place]]}", _figure(matrix, float(values[place]), 4))
    return table


def _title(matrix: "KinshipMatrix") -> str:
    return f"Kinship to {short_names([matrix.base])[0]} ({matrix.metric})"


def _cells(matrix: "KinshipMatrix", decimals: int) -> "list[list[Text]]":
    count = len(matrix.ids)
    return [[_cell(matrix, row, column, decimals) for column in range(count)] for row in range(count)]


def _cell(matrix: "KinshipMatrix", row: int, column: int, decimals: int) -> "Text":
    value = float(matrix.values[row, column])
    text = _figure(matrix, value, decimals)
    if row == column or math.isnan(value):
        return styled((text, "dim"))
    if not matrix.spec.higher_is_closer:
        return styled(text)
    return styled((text, _COLOURS[min(3, max(0, int(value * 4)))]))


def _figure(matrix: "KinshipMatrix", value: float, decimals: int) -> str:
    """Similarities, which end at 1, by decimals; distances, of any size, by digits."""
    if math.isnan(value):
        return "-"
    value = round(value, decimals) + 0.0 if matrix.spec.higher_is_closer else value  # never -0.00
    return f"{value:.{decimals}f}" if matrix.spec.higher_is_closer else f"{value:.{max(3, decimals)}g}"


def _width(table: "Table", width: int) -> bool:
    """Whether ``table`` has room in ``width`` columns, with nothing cut."""
    from rich.measure import Measurement

    console = Terminal()
    console.width = UNCUT
    return Measurement.get(console, console.options, table).maximum <= width
