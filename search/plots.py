"""The family tree of a run as a picture."""

from typing import TYPE_CHECKING

from search.lineage import colour_range, layered_layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from search.lineage import Graph

COLOURS = "cividis"
WIDEST = 150.0  # inches


def lineage_figure(graph: "Graph", title: str = "") -> "Figure":
    """Founders at the top, generations below; colour is the score, the number above a child its parents' kinship."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    layout = layered_layout(graph)
    levels = [y for _, y in layout.nodes.values()]
    widest = max(levels.count(level) for level in levels)
    size = (min(max(7.0, 1.25 * widest + 1.5), WIDEST), min(1.35 * len(layout.layers) + 0.8, WIDEST))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    norm = Normalize(*colour_range(graph))
    for route in layout.edges.values():
        axes.plot(*zip(*route, strict=True), color="0.7", linewidth=1, zorder=1, solid_joinstyle="round")
    for node, (x, y) in layout.nodes.items():
        score = graph.nodes[node]["score"]
        colour = colormaps[COLOURS](norm(score)) if score is not None else "white"
        marker = "s" if graph.nodes[node]["role"] in {"exploration", "random"} else "o"
        axes.scatter([x], [y], s=260, color=[colour], marker=marker, edgecolor="0.25", linewidth=0.8, zorder=3)
        text = node if score is None else f"{node}\n{score:.3f}"
        axes.annotate(
            text, (x, y), (0, -12), textcoords="offset points", ha="center", va="top", fontsize=7.5, zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
        kinship = graph.nodes[node]["kinship"]
        if kinship is not None:
            axes.annotate(
                f"{kinship:.2f}", (x, y), (0, 12), textcoords="offset points", ha="center", fontsize=7, zorder=4,
                color="0.3", bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )  # fmt: skip
    axes.set_yticks(range(len(layout.layers)), [_layer_name(generation) for generation in layout.layers])
    axes.set_ylim(len(layout.layers) - 0.4, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(ScalarMappable(norm, COLOURS), ax=axes, label="score, search split", shrink=0.7, extend="min")
    axes.set_title(
        title or "Family tree (squares: the added partner; small numbers: kinship of the parents)", fontsize=9
    )
    return figure


def _layer_name(generation: int) -> str:
    return "founders" if generation == 0 else f"generation {generation}"
