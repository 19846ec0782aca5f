"""The report's interactive charts, as Plotly figures. Colours are the Okabe-Ito set and cividis."""

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from kinship.checkpoints.references import short_names
from kinship.measures.matrix import KinshipMatrix
from kinship.outside import captions, in_chart, on_terminal
from kinship.pictures.layout import colour_range as score_range
from kinship.pictures.layout import layered_layout
from kinship.pictures.marks import mark_of
from kinship.pictures.plots import colour_range
from kinship.pictures.profile import pairs_by_group
from kinship.trees.dendrogram import leaf_order
from search.history.lineage import lineage_of
from service.answers.scores import Split
from service.pages.contents import RunContents

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "solid")
MOST_NUMBERED = 25  # models, up to which the cells of a heatmap show their numbers
MOST_DRAWN, OF_MANY = 200, 60  # individuals in a picture of descent: of runs with no more; of larger ones
MOST_LINES = 30  # of a front over three tasks or more
ORANGE, BLUE, GREY, FAINT = "#D55E00", "#0072B2", "#888888", "#CCCCCC"
COLOURS: dict[Split, str] = {"search": BLUE, "held_out": ORANGE}
SYMBOLS = {"o": "circle", "s": "square", "h": "hexagon", "D": "diamond"}
LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "legend": {"orientation": "h", "y": 1.12},
}


def scores_by_generation(view: RunContents) -> go.Figure:
    """Every individual's search score, and the held-out score of each generation's best so far."""
    figure = go.Figure()
    people = [person for person in view.individuals.values() if person.id != view.run.base]
    seen = [person for person in people if "search" in person.scores]
    figure.add_scatter(
        x=np.array([person.generation for person in seen]),
        y=np.array([person.scores["search"].value for person in seen]),
        text=[in_chart(person.id) for person in seen],
        mode="markers",
        name="all, search split",
        marker={"color": BLUE, "size": 9, "opacity": 0.6},
        hovertemplate="%{text}: %{y:.4f}<extra>search split</extra>",
    )
    for split in view.run.splits:
        colour = COLOURS[split]
        leaders = [view.individuals[id] for id in view.run.best_so_far if split in view.individuals[id].scores]
        last = max((person.generation for person in people), default=0)
        x = [person.generation for person in leaders] + [last] * bool(leaders)
        rows = [person.scores[split] for person in leaders]
        rows += rows[-1:]
        figure.add_scatter(
            x=x,
            y=[row.value for row in rows],
            error_y={"array": [(row.stderr or 0.0) for row in rows], "color": colour, "thickness": 1},
            text=[in_chart(person.id) for person in [*leaders, *leaders[-1:]]],
            mode="lines+markers",
            line={"shape": "hv", "color": colour, "dash": "solid"},
            name=f"best so far, {split.replace('_', '-')} split",
            hovertemplate="%{text}: %{y:.4f}<extra>" + split.replace("_", "-") + " split</extra>",
        )
        founder = view.score(view.run.best_founder, split)
        if founder is not None:
            figure.add_hline(y=founder.value, line={"color": colour, "dash": "dot", "width": 1})
    figure.update_layout(**LAYOUT, height=420)
    figure.update_xaxes(title="generation (0: founders)", dtick=1)
    figure.update_yaxes(title="score (dotted: best founder)")
    return figure


def best_by_evaluations(views: Mapping[str, RunContents]) -> go.Figure:
    """Best search score after so many offspring evaluated, one line a run."""
    figure = go.Figure()
    for (label, view), colour, dash in zip(views.items(), PALETTE, DASHES, strict=False):
        founder = view.score(view.run.best_founder, "search")
        best = [founder.value if founder else 0.0]
        for person in view.individuals.values():
            if person.generation > 0:
                score = person.scores.get("search")
                best.append(max(best[-1], score.value) if score and score.complete else best[-1])
        figure.add_scatter(
            x=np.arange(len(best)),
            y=np.array(best),
            mode="lines",
            line={"shape": "hv", "color": colour, "dash": dash, "width": 3},
            name=in_chart(label),
        )
    figure.update_layout(**LAYOUT, height=380)
    figure.update_xaxes(title="offspring evaluated")
    figure.update_yaxes(title="best score so far, search split")
    return figure


def front_chart(view: RunContents) -> go.Figure:
    """Who is beaten by nobody on all tasks at once: in the plane of two tasks, or a line over several of them.

    Of lines, those with the highest scores have colours; with many tasks nearly everybody is on the front.
    """
    front = set(view.run.pareto_front)
    tasks = list(view.run.tasks)
    scored = {
        id: [person.scores["search"].tasks[task].value for task in tasks]
        for id, person in view.individuals.items()
        if (score := person.scores.get("search")) and score.complete
    }
    figure = go.Figure()
    if len(tasks) == 2:
        for name, ids, colour in (("others", scored.keys() - front, GREY), ("front", front, ORANGE)):
            members = sorted(ids, key=lambda id: (scored[id], id))
            figure.add_scatter(
                x=np.array([scored[id][0] for id in members]),
                y=np.array([scored[id][1] for id in members]),
                text=list(map(in_chart, members)),
                mode="markers" if name == "others" else "lines+markers",
                line={"shape": "vh", "color": colour, "width": 1},
                marker={"color": colour, "size": 7, "opacity": 0.5 if name == "others" else 1.0},
                name=name,
                hovertemplate="%{text}: %{x:.4f}, %{y:.4f}<extra></extra>",
            )
        figure.update_xaxes(title=in_chart(tasks[0]))
        figure.update_yaxes(title=in_chart(tasks[1]))
    else:
        best = sorted(front, key=lambda id: (-view.individuals[id].scores["search"].value, id))[:MOST_LINES]
        for place, id in reversed(list(enumerate(best))):  # the best are drawn last, on top
            named = place < len(PALETTE)
            line = (
                {"color": PALETTE[place], "dash": DASHES[place], "width": 2} if named else {"color": FAINT, "width": 1}
            )
            figure.add_scatter(
                x=list(map(escape, captions(tasks))),
                y=scored[id],
                mode="lines+markers" if named else "lines",
                line=line,
                name=in_chart(id),
                showlegend=named,
                text=[in_chart(id)] * len(tasks),
                hovertemplate="%{text}, %{x}: %{y:.4f}<extra></extra>",
            )
        figure.update_xaxes(type="category")
        figure.update_yaxes(title="score")
    figure.update_layout(**LAYOUT, height=420)
    figure.update_layout(legend_traceorder="reversed")
    return figure


def kinship_heatmap(matrix: KinshipMatrix) -> go.Figure:
    """Kinship of all individuals, ordered by clustering."""
    order = leaf_order(matrix)
    short = list(map(escape, captions(short_names(matrix.ids))))
    names = [short[index] for index in order]
    low, high = colour_range(matrix)
    figure = go.Figure(
        go.Heatmap(
            z=matrix.values[order][:, order],
            x=names,
            y=names,
            zmin=low,
            zmax=high,
            colorscale="Cividis",
            reversescale=not matrix.spec.higher_is_closer,
            colorbar={"title": matrix.spec.label},
            hovertemplate="%{y} and %{x}: %{z:.4f}<extra></extra>",
            texttemplate="%{z:.2f}" if len(names) <= MOST_NUMBERED else None,
        )
    )
    side = max(420, 22 * len(names) + 160)
    figure.update_layout(**LAYOUT, height=side)
    figure.update_xaxes(type="category", tickangle=-45)
    figure.update_yaxes(type="category", autorange="reversed")
    return figure


def pairs_heatmap(groups: Mapping[str, KinshipMatrix], by: str) -> go.Figure:
    """Kinship of every pair in every group, the closest pairs on top."""
    first = next(iter(groups.values()))
    names = list(map(escape, captions(short_names(first.ids))))
    pairs, values = pairs_by_group(groups)
    means = np.array([np.nanmean(row) if not np.isnan(row).all() else np.nan for row in values])
    order = np.argsort(-means if first.spec.higher_is_closer else means, kind="stable")
    rows = [f"{names[one]} + {names[other]}" for one, other in (pairs[index] for index in order)]
    figure = go.Figure(
        go.Heatmap(
            z=values[order],
            x=list(map(escape, captions(groups))),
            y=rows,
            colorscale="Cividis",
            reversescale=not first.spec.higher_is_closer,
            colorbar={"title": first.spec.label},
            hovertemplate="%{y}<br>%{x}: %{z:.4f}<extra></extra>",
            texttemplate="%{z:.2f}" if values.size <= MOST_NUMBERED**2 else None,
        )
    )
    figure.update_layout(**LAYOUT, height=min(max(360, 18 * len(rows) + 160), 4000))
    figure.update_xaxes(type="category", tickangle=-45, title=escape(by))
    figure.update_yaxes(type="category", autorange="reversed", automargin=True)
    return figure


def drawn(export: Mapping[str, Any]) -> "Tree":
    """The lineage that pictures of a run show: everyone's, or of a large run that of the best (`lineage.shown`).

    Of thousands of edges across hundreds of generations nobody could follow one.
    """
    many = len(export["individuals"]) > MOST_DRAWN
    return lineage_of(export, OF_MANY if many else None)


def family_tree(view: RunContents) -> go.Figure:
    """Recorded lineage: founders at the top, colour the search score, edges labelled with the parents' kinship.

    Of a large run that of the `drawn` individuals.
    """
    graph = drawn(view.export)
    layout = layered_layout(graph)
    positions = layout.nodes
    figure = go.Figure()
    xs: list[float | None] = []
    ys: list[float | None] = []
    for route in layout.edges.values():
        xs += [*(x for x, _ in route), None]
        ys += [*(y for _, y in route), None]
    figure.add_scatter(x=xs, y=ys, mode="lines", line={"color": "#bbb", "width": 1.2}, hoverinfo="skip")
    born = [node for node in graph if graph.nodes[node]["kinship"] is not None]
    figure.add_scatter(
        x=[positions[node][0] for node in born],
        y=[positions[node][1] - 0.22 for node in born],
        text=[f"{graph.nodes[node]['kinship']:.2f}" for node in born],
        mode="text",
        textfont={"size": 11, "color": "#555"},
        hoverinfo="skip",
    )
    nodes = list(graph)
    values = [graph.nodes[node]["score"] for node in nodes]
    low, high = score_range(graph)
    figure.add_scatter(
        x=[positions[node][0] for node in nodes],
        y=[positions[node][1] for node in nodes],
        text=list(map(in_chart, nodes)),
        mode="markers+text",
        textposition="bottom center",
        marker={
            "size": 20,
            "color": [math.nan if value is None else value for value in values],  # nan: no colour
            "colorscale": "Cividis",
            "cmin": low,
            "cmax": high,
            "showscale": True,
            "colorbar": {"title": "score"},
            "symbol": [SYMBOLS[mark_of(graph.nodes[node]).shape] for node in nodes],
            "line": {"color": "#333", "width": 1},
        },
        customdata=[_hover(view, node) for node in nodes],
        hovertemplate="%{customdata}<extra></extra>",
    )
    depth = len(layout.layers)
    figure.update_layout(**LAYOUT, height=max(150 * min(depth, 10), 60 * depth) + 80, showlegend=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(
        tickvals=list(range(depth)),
        ticktext=list(layout.layers),
        range=[depth - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return figure


def _hover(view: RunContents, id: str) -> str:
    person = view.individuals[id]
    lines = [f"<b>{in_chart(id)}</b> ({person.role})"]
    if person.parents:
        lines.append(f"parents: {', '.join(map(in_chart, person.parents))}")
    if person.kinship_of_parents is not None:
        lines.append(f"their kinship: {person.kinship_of_parents:.3f}")
    for split, entry in person.scores.items():
        partly = "" if entry.complete else f" (estimated: stopped after {entry.documents} documents)"
        lines.append(f"{split.replace('_', '-')}: {entry.value:.4f}{partly}")
    if person.merge_gain is not None:
        lines.append(f"merge gain: {person.merge_gain:+.4f}")
    if person.error:
        lines.append(f"failed: {escape(on_terminal(person.error))}")
    return "<br>".join(lines)
