"""A family tree as a picture, for papers. Colours are readable with every kind of colour vision."""

from collections import Counter
from collections.abc import Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

from kinship.checkpoints.references import short_names
from kinship.outside import captions, in_picture
from kinship.pictures.canvas import picture
from kinship.pictures.layout import Layout, colour_range, layered_layout
from kinship.pictures.plots import COLOURS
from kinship.trees.formats import edge_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kinship.trees.graph import Tree

WIDEST = 150.0  # inches
MANY_EDGES = 60  # beyond which edges are not labelled
WIDE = 24  # models in a generation beyond which generations run from left to right, each model on a line of its own

# Where names stand.
BELOW: Mapping[str, Any] = {"xytext": (0, -12), "ha": "center", "va": "top", "fontsize": 7.5}
BESIDE: Mapping[str, Any] = {"xytext": (5, 0), "ha": "left", "va": "center", "fontsize": 6}

# Of Okabe and Ito, with a dash each, so that kinds differ in print too.
EDGES: Mapping[str, tuple[str, Literal["-", "--", "-.", ":"]]] = {
    "merge": ("#0072b2", "-"),
    "finetune": ("0.45", "-"),
    "lora": ("#009e73", "-."),
    "quantized": ("#d55e00", "--"),
    "cast": ("0.6", ":"),
    "resized": ("#cc79a7", "--"),
    "duplicate": ("0.6", ":"),
    "unknown": ("0.7", "--"),
}


@picture
def family_figure(tree: "Tree", title: str = "") -> "Figure":
    """Roots at the top, generations below; colour is the score where there is one; edges say kind and kinship.

    Large trees have their roots at the left, and those without relatives are named below.
    Squares are partners that a search added; the number above a child of a search is its parents' kinship; dashed
    rings are models that are only named.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    names = dict(zip(tree, captions(short_names(list(tree))), strict=True))
    layout, alone = layered_layout(tree), []
    sideways = _widest(layout) > WIDE
    if sideways:
        if tree.number_of_edges():
            tree, alone = tree.copy(), [node for node in tree if not tree.degree(node)]
            tree.remove_nodes_from(alone)
        layout = layered_layout(tree)
        width, height = 1.9 * len(layout.layers) + 1.0, 0.17 * _widest(layout) + 1.2
        layout = _turned(layout)
    else:
        width, height = 1.25 * _widest(layout) + 1.5, 1.35 * len(layout.layers) + 0.8
    figure = Figure(figsize=(min(max(7.0, width), WIDEST), min(height, WIDEST)), layout="constrained")
    axes = figure.subplots()
    scored = any(facts.get("score") is not None for _, facts in tree.nodes(data=True))
    norm = Normalize(*colour_range(tree))
    kinds = sorted({facts["kind"] for *_, facts in tree.edges(data=True)}, key=list(EDGES).index)
    for (parent, child), route in layout.edges.items():
        facts = tree.edges[parent, child]
        colour, dash = EDGES[facts["kind"]] if len(kinds) > 1 else ("0.7", "-")
        axes.plot(
            *zip(*route, strict=True), color=colour, linestyle=dash, linewidth=1, zorder=1, solid_joinstyle="round"
        )
        # Of a search, the number stands above the child, once for both its parents.
        if len(layout.edges) <= MANY_EDGES and tree.nodes[child].get("kinship") is None and _tells(facts):
            _note(axes, _middle(route), 0, edge_text(facts))
    for node, (x, y) in layout.nodes.items():
        facts = tree.nodes[node]
        score = facts.get("score")
        colour = colormaps[COLOURS](norm(score)) if score is not None else "white"
        marker = "s" if facts.get("role") in {"exploration", "random"} else "o"
        ring = "-" if facts.get("given", True) else "--"
        axes.scatter(
            [x],
            [y],
            s=40 if sideways else 260,
            color=[colour],
            marker=marker,
            edgecolor="0.25",
            linewidth=0.8,
            linestyle=ring,
            zorder=3,
        )
        text = names[node] if score is None else f"{names[node]}{' ' if sideways else chr(10)}{score:.3f}"
        axes.annotate(
            text, (x, y), textcoords="offset points", zorder=4, **(BESIDE if sideways else BELOW),
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
        if facts.get("kinship") is not None and not sideways:
            _note(axes, (x, y), 12, f"{facts['kinship']:.2f}")
    ticks = range(len(layout.layers)), [_layer_name(generation) for generation in layout.layers]
    if sideways:
        axes.set_xticks(*ticks)
        axes.xaxis.tick_top()
        axes.set_xlim(-0.2, len(layout.layers) - 0.3)
        axes.set_ylim(1, 0)
        axes.set_yticks([])
    else:
        axes.set_yticks(*ticks)
        axes.set_ylim(len(layout.layers) - 0.4, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if scored:
        figure.colorbar(ScalarMappable(norm, COLOURS), ax=axes, label="score", shrink=0.7, extend="min")
    if len(kinds) > 1:
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], color=EDGES[kind][0], linestyle=EDGES[kind][1], label=kind) for kind in kinds]
        axes.legend(handles=lines, loc="upper left", bbox_to_anchor=(0, 0), ncols=len(lines), fontsize=7, frameon=False)
    if alone:
        listed = ", ".join(names[node] for node in alone)
        figure.supxlabel(_wrapped(f"No relatives here: {listed}", figure.get_figwidth()), fontsize=7, x=0.01, ha="left")
    axes.set_title(in_picture(title or "Family tree"), fontsize=9)
    return figure


def _widest(layout: Layout) -> int:
    """Models in the largest generation."""
    return max(Counter(y for _, y in layout.nodes.values()).values())


def _turned(layout: Layout) -> Layout:
    """Layers from left to right."""
    routes = {edge: [(y, x) for x, y in route] for edge, route in layout.edges.items()}
    return Layout({node: (y, x) for node, (x, y) in layout.nodes.items()}, routes, layout.layers)


def _wrapped(text: str, inches: float) -> str:
    return "\n".join(wrap(text, int(inches * 18)))


def _tells(facts: dict[str, Any]) -> bool:
    """Whether there is more to say at an edge than that it is one of a search."""
    return bool(facts.get("kinship") is not None or facts.get("confidence") is not None or facts["kind"] != "merge")


def _middle(route: list[tuple[float, float]]) -> tuple[float, float]:
    (one, two), (three, four) = route[(len(route) - 2) // 2 : (len(route) - 2) // 2 + 2]
    return (one + three) / 2, (two + four) / 2


def _note(axes: Any, place: tuple[float, float], above: int, text: str) -> None:
    axes.annotate(
        text, place, (0, above), textcoords="offset points", ha="center", fontsize=7, zorder=4, color="0.3",
        bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
    )  # fmt: skip


def _layer_name(generation: int) -> str:
    return "founders" if generation == 0 else f"generation {generation}"
