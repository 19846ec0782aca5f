"""`kinship matrix`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from kinship.compute import kinship_matrix
from kinship.matrix import KinshipMatrix
from kinship.names import short_names
from kinship.output import output_file, require_writable
from service.console import byte_progress, console, notes, print_json
from service.figures import PICTURES, require_suffix, save_figure

if TYPE_CHECKING:
    from rich.table import Table

FORMATS = (".csv", ".json", ".npz", *PICTURES)


def run(models: list[str], base: str, metric: str, out: list[Path], *, as_json: bool, force: bool) -> None:
    """Compute, print and write a kinship matrix."""
    for path in out:
        require_suffix(path, FORMATS)
        require_writable(path, force=force)
    with byte_progress("Reading weights", quiet=as_json) as progress:
        matrix = kinship_matrix(models, base, metric, progress)
    for path in out:
        save(matrix, path, force=force)
    if as_json:
        print_json(matrix.to_dict())
        return
    console().print(matrix_table(matrix))
    summary = f"{matrix.spec.label} of task vectors over {matrix.tensors} tensors"
    if not math.isnan(matrix.mean()):
        summary += f"; mean of all pairs {matrix.mean():.4f}"
    console().print(summary + ".")
    for name in matrix.without_direction():
        notes().print(f"[yellow]Note:[/] {name} equals the base: it has no direction, so no {metric} either.")
    if matrix.left_out:
        name, reason = next(iter(matrix.left_out.items()))
        notes().print(f"[yellow]Note:[/] {len(matrix.left_out)} tensors were left out, such as {name}: {reason}.")
    for path in out:
        notes().print(f"Wrote {path}")


def save(matrix: KinshipMatrix, path: Path, *, force: bool = False) -> None:
    """Write the matrix in the format that the suffix names."""
    if path.suffix in PICTURES:
        from kinship.plots import heatmap

        save_figure(heatmap(matrix), path, force=force)
        return
    with output_file(path, force=force) as partial:
        matrix.save(partial, path.suffix)


def matrix_table(matrix: KinshipMatrix) -> "Table":
    """The matrix for a terminal; closer pairs are brighter, the diagonal is dim."""
    from rich.table import Table

    names = short_names(matrix.ids)
    table = Table(title=f"Kinship to {short_names([matrix.base])[0]} ({matrix.metric})", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for row, name in enumerate(names):
        cells = [_cell(matrix, row, column) for column in range(len(names))]
        table.add_row(name, *cells)
    return table


def _cell(matrix: KinshipMatrix, row: int, column: int) -> str:
    value = float(matrix.values[row, column])
    text = "-" if math.isnan(value) else f"{value:.4f}"
    if row == column or math.isnan(value):
        return f"[dim]{text}[/]"
    if not matrix.spec.higher_is_closer:
        return text
    colour = ("bright_black", "blue", "cyan", "yellow")[min(3, max(0, int(value * 4)))]
    return f"[{colour}]{text}[/]"
