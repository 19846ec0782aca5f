"""A family tree as a picture, for papers. Colours are readable with every kind of colour vision."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from kinship.family_tree.formats import edge_text
from kinship.family_tree.layout import colour_range, layered_layout
from kinship.names import short_names
from kinship.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kinship.family_tree.graph import Tree

WIDEST = 150.0  # inches
MANY_EDGES = 60  # beyond which edges are not labelled

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


def family_figure(tree: "Tree", title: str = "") -> "Figure":
    """Roots at the top, generations below; colour is the score where there is one; edges say kind and kinship.

    Squares are partners that a search added; the number above a child of a search is its parents' kinship; dashed
    rings are models that are only named.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    layout = layered_layout(tree)
    levels = [y for _, y in layout.nodes.values()]
    widest = max(levels.count(level) for level in levels)
    size = (min(max(7.0, 1.25 * widest + 1.5), WIDEST), min(1.35 * len(layout.layers) + 0.8, WIDEST))
    figure = Figure(figsize=size, layout="constrained")
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
    names = dict(zip(tree, short_names(list(tree)), strict=True))
    for node, (x, y) in layout.nodes.items():
        facts = tree.nodes[node]
        score = facts.get("score")
        colour = colormaps[COLOURS](norm(score)) if score is not None else "white"
        marker = "s" if facts.get("role") in {"exploration", "random"} else "o"
        ring = "-" if facts.get("given", True) else "--"
        axes.scatter(
            [x], [y], s=260, color=[colour], marker=marker, edgecolor="0.25", linewidth=0.8, linestyle=ring, zorder=3
        )
        text = names[node] if score is None else f"{names[node]}\n{score:.3f}"
        axes.annotate(
            text, (x, y), (0, -12), textcoords="offset points", ha="center", va="top", fontsize=7.5, zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
        if facts.get("kinship") is not None:
            _note(axes, (x, y), 12, f"{facts['kinship']:.2f}")
    axes.set_yticks(range(len(layout.layers)), [_layer_name(generation) for generation in layout.layers])
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
    axes.set_title(title or "Family tree", fontsize=9)
    return figure


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
