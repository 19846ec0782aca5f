"""Pictures of a kinship matrix. Colours are readable with every kind of colour vision."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from kinship.checkpoints.references import short_names
from kinship.measures.matrix import KinshipMatrix
from kinship.outside import captions, in_picture
from kinship.pictures.canvas import picture
from kinship.trees.dendrogram import cluster

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "cividis"
LARGEST = 36.0  # inches
MOST_NAMED, MOST_LABELS = 500, 100  # models, and groups along an axis

# The Okabe-Ito colours, each with its own dash, so that lines differ in print too.
LINES = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", "-"),
    ("#56B4E9", "--"),
)


@picture
def heatmap(matrix: KinshipMatrix) -> "Figure":
    """Clustered heatmap with its dendrogram and the values in the cells (up to 30 models).

    Many models have smaller cells and names; more than `MOST_LABELS` are named at the rows only, more than
    `MOST_NAMED` nowhere.
    """
    from matplotlib.figure import Figure

    count = len(matrix.ids)
    side = max(4.0, 0.55 * min(count, 30) + 0.08 * max(0, count - 30) + 2.2)
    side = min(side, LARGEST)
    figure = Figure(figsize=(side + 1.2, side + 0.9), layout="constrained")
    top, main = figure.subplots(2, 1, height_ratios=[1, 5])
    order = list(range(count))
    if count > 1:
        order = _draw_tree(matrix, top, no_labels=True, above_threshold_color="0.35")
        top.set_xlim(0, 10 * count)
    top.axis("off")
    values = matrix.values[np.ix_(order, order)]
    short = captions(short_names(matrix.ids))
    names = [short[index] for index in order]
    low, high = colour_range(matrix)
    colours = COLOURS if matrix.spec.higher_is_closer else f"{COLOURS}_r"
    image = main.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    size = _font_size((side - 2.2) / count)
    rows = range(count if count <= MOST_NAMED else 0)
    columns = range(count if count <= MOST_LABELS else 0)  # the rows' names, in the same order
    main.set_xticks(columns, names[: len(columns)], rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    main.set_yticks(rows, names[: len(rows)], fontsize=size)
    if count <= 30:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
                main.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    figure.colorbar(image, ax=main, label=matrix.spec.label, shrink=0.8)
    figure.suptitle(f"Kinship to {in_picture(short_names([matrix.base])[0])}", fontsize=11)
    return figure


@picture
def dendrogram_figure(matrix: KinshipMatrix) -> "Figure":
    """Dendrogram of the models, root at the left; more than `MOST_NAMED` have no names."""
    from matplotlib.figure import Figure

    count = len(matrix.ids)
    height = min(0.35 * count, max(21.0, 0.14 * count), 2 * LARGEST)
    figure = Figure(figsize=(7, max(2.5, height + 1)), layout="constrained")
    axes = figure.subplots()
    names = captions(short_names(matrix.ids))
    labels = {"labels": names, "leaf_font_size": _font_size(height / count)} if count <= MOST_NAMED else {}
    _draw_tree(matrix, axes, orientation="left", above_threshold_color="0.25", no_labels=not labels, **labels)
    similar = matrix.spec.higher_is_closer
    axes.set_xlabel(f"1 - {matrix.spec.label}" if similar else matrix.spec.label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _draw_tree(matrix: KinshipMatrix, axes: "Axes", **options: Any) -> list[int]:
    """Draw the dendrogram by SciPy; returns the leaves in order."""
    from scipy.cluster.hierarchy import dendrogram

    linkage, before = cluster(matrix), sys.getrecursionlimit()
    sys.setrecursionlimit(before + len(matrix.ids))  # SciPy goes down a tree by recursion
    try:
        leaves: list[int] = dendrogram(linkage, ax=axes, color_threshold=0, **options)["leaves"]
    finally:
        sys.setrecursionlimit(before)
    return leaves


def _font_size(pitch: float) -> float:
    """Points of names that are ``pitch`` inches apart."""
    return min(10.0, 60 * pitch)


def colour_range(matrix: KinshipMatrix) -> tuple[float, float]:
    """Where the colour scale starts and ends: 0 to 1 for similarities, further down where some are negative."""
    off_diagonal = matrix.values[~np.eye(len(matrix.ids), dtype=bool)]
    finite = off_diagonal[~np.isnan(off_diagonal)]
    if matrix.spec.higher_is_closer:
        return min(0.0, float(finite.min(initial=0.0))), 1.0
    return 0.0, float(finite.max(initial=1e-12))
