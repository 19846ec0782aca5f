"""Pictures of a kinship matrix. Colours are readable with every kind of colour vision."""

from typing import TYPE_CHECKING

import numpy as np

from kinship.matrix import KinshipMatrix
from kinship.names import short_names
from kinship.trees import cluster

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "cividis"


def heatmap(matrix: KinshipMatrix) -> "Figure":
    """Clustered heatmap with its dendrogram and the values in the cells (up to 30 models)."""
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import dendrogram

    count = len(matrix.ids)
    side = max(4.0, 0.55 * count + 2.2)
    figure = Figure(figsize=(side + 1.2, side + 0.9), layout="constrained")
    top, main = figure.subplots(2, 1, height_ratios=[1, 5])
    order = list(range(count))
    if count > 1:
        tree = dendrogram(cluster(matrix), ax=top, no_labels=True, color_threshold=0, above_threshold_color="0.35")
        order = tree["leaves"]
        top.set_xlim(0, 10 * count)
    top.axis("off")
    values = matrix.values[np.ix_(order, order)]
    names = [short_names(matrix.ids)[index] for index in order]
    low, high = colour_range(matrix)
    colours = COLOURS if matrix.spec.higher_is_closer else f"{COLOURS}_r"
    image = main.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    main.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
    main.set_yticks(range(count), names)
    if count <= 30:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
                main.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    figure.colorbar(image, ax=main, label=matrix.spec.label, shrink=0.8)
    figure.suptitle(f"Kinship to {short_names([matrix.base])[0]}", fontsize=11)
    return figure


def dendrogram_figure(matrix: KinshipMatrix) -> "Figure":
    """Dendrogram of the models, root at the left."""
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import dendrogram

    figure = Figure(figsize=(7, max(2.5, 0.35 * len(matrix.ids) + 1)), layout="constrained")
    axes = figure.subplots()
    dendrogram(
        cluster(matrix), ax=axes, labels=short_names(matrix.ids), orientation="left", color_threshold=0,
        above_threshold_color="0.25",
    )  # fmt: skip
    similar = matrix.spec.higher_is_closer
    axes.set_xlabel(f"1 - {matrix.spec.label}" if similar else matrix.spec.label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def colour_range(matrix: KinshipMatrix) -> tuple[float, float]:
    """Where the colour scale starts and ends: 0 to 1 for similarities, further down where some are negative."""
    off_diagonal = matrix.values[~np.eye(len(matrix.ids), dtype=bool)]
    finite = off_diagonal[~np.isnan(off_diagonal)]
    if matrix.spec.higher_is_closer:
        return min(0.0, float(finite.min(initial=0.0))), 1.0
    return 0.0, float(finite.max(initial=1e-12))
