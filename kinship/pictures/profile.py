"""Kinship along the groups of a network (layers, kinds of modules, tensors) as a picture."""

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from kinship.checkpoints.references import short_names
from kinship.measures.matrix import KinshipMatrix
from kinship.outside import captions, in_picture
from kinship.pictures.canvas import picture
from kinship.pictures.plots import COLOURS, LARGEST, LINES, MOST_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kinship.arrays import Float64

LONGEST = 16  # letters of names at rows of pairs; longer ones are told below, by number
MOST_ROWS = 120  # pairs that are named


@picture
def profile(groups: Mapping[str, KinshipMatrix], by: str) -> "Figure":
    """Above, kinship along the groups: a line a pair, or mean and range where there are many. Below, every pair by
    every group as a heatmap, the closest pairs on top.
    """
    from matplotlib.figure import Figure

    first = next(iter(groups.values()))
    names = captions(short_names(first.ids))
    labels, values = pairs_by_group(groups)
    rows = max(2.0, min(0.16 * len(labels), LARGEST))
    wide = min(max(7.0, 0.32 * len(groups) + 3), LARGEST)
    figure = Figure(figsize=(wide, 3.2 + rows + (1.0 if _numbered(names) else 0.0)), layout="constrained")
    lines, heat = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, rows])
    _lines(lines, names, labels, values)
    lines.set_ylabel(first.spec.label)
    lines.set_title(f"Kinship by {in_picture(by)}", fontsize=10)
    order = np.argsort(-np.nan_to_num(np.nanmean(values, axis=1), nan=-np.inf), kind="stable")
    order = order if first.spec.higher_is_closer else order[::-1]
    colours = COLOURS if first.spec.higher_is_closer else f"{COLOURS}_r"
    image = heat.imshow(values[order], cmap=colours, aspect="auto", interpolation="nearest")
    text = [f"{one + 1} + {other + 1}" if _numbered(names) else f"{names[one]} + {names[other]}"
            for one, other in (labels[index] for index in order)]  # fmt: skip
    text = text if len(text) <= MOST_ROWS else []
    heat.set_yticks(range(len(text)), text, fontsize=6.5)
    step = 1 + len(groups) // MOST_LABELS  # of very many groups some are named
    heat.set_xticks(np.arange(len(groups))[::step], captions(groups)[::step], rotation=60, ha="right",
                    rotation_mode="anchor", fontsize=8)  # fmt: skip
    heat.set_ylabel("pair")
    figure.colorbar(image, ax=heat, label=first.spec.label, shrink=0.8)
    if _numbered(names):
        listed = "\n".join(f"{number}  {name}" for number, name in enumerate(names, 1))
        figure.supxlabel(listed, fontsize=6.5, x=0.01, ha="left")
    return figure


def pairs_by_group(groups: Mapping[str, KinshipMatrix]) -> "tuple[list[tuple[int, int]], Float64]":
    """The pairs of models by their places, and kinship (pairs, groups) of each in each; NaN where there is none."""
    count = len(next(iter(groups.values())).ids)
    pairs = list(combinations(range(count), 2))
    upper = np.triu_indices(count, 1)
    return pairs, np.stack([matrix.values[upper] for matrix in groups.values()], axis=1)


def _numbered(names: list[str]) -> bool:
    return max(map(len, names)) > LONGEST


def _lines(axes: "Axes", names: list[str], pairs: list[tuple[int, int]], values: "Float64") -> None:
    places = np.arange(values.shape[1])
    if len(pairs) <= len(LINES):
        for (one, other), row, (colour, dash) in zip(pairs, values, LINES, strict=False):
            label = f"{one + 1} + {other + 1}" if _numbered(names) else f"{names[one]} + {names[other]}"
            axes.plot(places, row, color=colour, linestyle=dash, marker="o", markersize=3, label=label)
    else:
        axes.fill_between(places, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color="0.85", label="range")
        axes.plot(
            places, np.nanmean(values, axis=0), color=LINES[0][0], marker="o", markersize=3, label="mean of pairs"
        )
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, ncols=2)
