"""The report of a comparison of merge methods: five figures and their tables in one self-contained file."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from kinship.output import output_file
from kinship.outside import in_chart, write_csv
from service.answers.method_comparison import FILE, ComparedRow, MethodComparison, table_rows
from service.pages.charts import BLUE, DASHES, GREY, LAYOUT, ORANGE, PALETTE
from service.pages.environment import page_environment
from service.pages.report import CHART_CONFIG, plotly_script

REPORT, TABLE = "report.html", "comparison.csv"
NAMES = {"held_in": "held-in", "unseen": "unseen"}


def write_comparison(folder: Path, answer: MethodComparison) -> Path:
    """Write the answer, its table and its report into ``folder``, over those of before; returns the report."""
    with output_file(folder / FILE, force=True) as partial:
        partial.write_text(answer.to_json() + "\n", encoding="utf-8")
    with output_file(folder / TABLE, force=True) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, table_rows(answer))
    with output_file(folder / REPORT, force=True) as partial:
        partial.write_text(comparison_page(answer), encoding="utf-8")
    return folder / REPORT


def comparison_page(answer: MethodComparison) -> str:
    """One page that needs nothing else; about 1.5 MB, of which Plotly is nearly all."""
    environment = page_environment()
    environment.filters["signed"] = lambda value: "" if value is None else f"{value:+.4f}"
    charts = {name: _html(figure) for name, figure in figures(answer).items()}
    template = environment.get_template("method_comparison.html")
    return template.render(answer=answer, groups=NAMES, charts=charts, plotly_js=plotly_script())


def figures(answer: MethodComparison) -> dict[str, go.Figure]:
    """The five figures by name; those of which nothing was measured are left out."""
    made = {
        "scatter": held_in_against_unseen(answer),
        "cells": by_cell(answer),
        "cost": cost_against_score(answer),
        "sensitivity": by_parameter(answer),
        "number": by_number(answer),
    }
    return {name: figure for name, figure in made.items() if figure.data}


def held_in_against_unseen(answer: MethodComparison) -> go.Figure:
    """A dot for each row that has both scores, with its intervals."""
    figure = go.Figure()
    looks = {"baseline": (GREY, "square"), "control": (ORANGE, "x"), "method": (BLUE, "circle")}
    for (kind, tuned), label in {
        ("method", False): "methods, untuned",
        ("method", True): "methods, tuned",
        ("baseline", False): "baselines",
        ("control", False): "controls",
    }.items():
        rows = [row for row in _scored(answer) if row.kind == kind and row.tuned == tuned and "unseen" in row.scores]
        if not rows:
            continue
        colour, symbol = looks[kind]
        figure.add_scatter(
            x=[row.scores["held_in"].value for row in rows],
            y=[row.scores["unseen"].value for row in rows],
            error_x=_errors(rows, "held_in"),
            error_y=_errors(rows, "unseen"),
            text=[in_chart(row.label) for row in rows],
            mode="markers+text",
            textposition="top center",
            textfont={"size": 9},
            name=label,
            marker={"color": colour, "size": 10, "symbol": f"{symbol}-open" if tuned else symbol},
            hovertemplate="%{text}<br>held-in %{x:.4f}, unseen %{y:.4f}<extra></extra>",
        )
    figure.update_layout(**LAYOUT, height=560)
    figure.update_xaxes(title="held-in score")
    figure.update_yaxes(title="unseen score")
    return figure


def by_cell(answer: MethodComparison) -> go.Figure:
    """Every row on every cell, as colours."""
    rows = _scored(answer)[::-1]
    cells = sorted(answer.cells, key=lambda name: not answer.cells[name].held_in)
    figure = go.Figure()
    if rows:
        figure.add_heatmap(
            z=[[row.cells[name] for name in cells] for row in rows],
            x=[in_chart(name) for name in cells],
            y=[in_chart(row.label) for row in rows],
            colorscale="Cividis",
            colorbar={"title": "score"},
            hovertemplate="%{y} on %{x}: %{z:.4f}<extra></extra>",
        )
        seen = sum(cell.held_in for cell in answer.cells.values())
        figure.add_vline(x=seen - 0.5, line={"color": "white", "width": 3})
    figure.update_layout(**LAYOUT | {"margin": {"l": 170, "r": 20, "t": 20, "b": 80}}, height=120 + 22 * len(rows))
    return figure


def cost_against_score(answer: MethodComparison) -> go.Figure:
    """Seconds of merge and statistics against the scores of the untuned arm."""
    figure = go.Figure()
    rows = {row.method: row for row in _scored(answer) if row.kind == "method" and not row.tuned}
    costs = [cost for cost in answer.costs if cost.merge and cost.method in rows]
    for place, group in enumerate(answer.rankings) if costs else ():
        figure.add_scatter(
            x=[sum(part.seconds for part in (cost.merge, cost.statistics) if part) for cost in costs],
            y=[rows[cost.method].scores[group].value for cost in costs],
            text=[in_chart(cost.method) for cost in costs],
            mode="markers+text",
            textposition="top center",
            textfont={"size": 9},
            name=NAMES[group],
            marker={"color": PALETTE[place], "size": 10, "symbol": "circle" if place == 0 else "diamond"},
            hovertemplate="%{text}: %{x:.3f} s, %{y:.4f}<extra></extra>",
        )
    figure.update_layout(**LAYOUT, height=460)
    figure.update_xaxes(title="seconds of one merge, statistics included", type="log")
    figure.update_yaxes(title="score")
    return figure


def by_parameter(answer: MethodComparison) -> go.Figure:
    """Scores by the value of each parameter that is a number; solid: held-in, dashed: unseen."""
    figure = go.Figure()
    for place, line in enumerate(answer.sensitivity):
        points = [point for point in line.points if isinstance(point.value, int | float)]
        if len(points) < 2:
            continue
        for group, dash in zip(answer.rankings, ("solid", "dash"), strict=False):
            figure.add_scatter(
                x=[point.value for point in points],
                y=[point.scores[group] for point in points],
                mode="lines+markers",
                name=in_chart(f"{line.method}, {line.parameter}"),
                legendgroup=f"{line.method} {line.parameter}",
                showlegend=dash == "solid",
                line={"color": PALETTE[place % len(PALETTE)], "dash": dash},
                hovertemplate=f"%{{x}}: %{{y:.4f}}<extra>{NAMES[group]}</extra>",
            )
    figure.update_layout(**LAYOUT | {"legend": {"orientation": "v"}}, height=480)
    figure.update_xaxes(title="value of the parameter")
    figure.update_yaxes(title="score (dashed: unseen)")
    return figure


def by_number(answer: MethodComparison) -> go.Figure:
    """Scores by the number of models merged, means over orders."""
    figure = go.Figure()
    for place, method in enumerate(dict.fromkeys(row.method for row in answer.number)):
        rows = [row for row in answer.number if row.method == method]
        for group, dash in zip(answer.rankings, DASHES, strict=False):
            figure.add_scatter(
                x=[row.models for row in rows],
                y=[row.scores[group].value for row in rows],
                error_y={"array": [row.scores[group].stderr or 0.0 for row in rows], "thickness": 1},
                mode="lines+markers",
                name=in_chart(f"{method}, {NAMES[group]}"),
                line={"color": PALETTE[place % len(PALETTE)], "dash": dash},
            )
    figure.update_layout(**LAYOUT, height=460)
    figure.update_xaxes(title="models merged", dtick=1)
    figure.update_yaxes(title="score (held-in: on the cells of the models merged)")
    return figure


def _scored(answer: MethodComparison) -> list[ComparedRow]:
    return [row for row in answer.rows if row.error is None]


def _errors(rows: list[ComparedRow], group: Any) -> dict[str, Any]:
    """Bars from the value to the ends of its interval."""
    scores = [row.scores[group] for row in rows]
    return {
        "array": [(score.high or score.value) - score.value for score in scores],
        "arrayminus": [score.value - (score.low if score.low is not None else score.value) for score in scores],
        "thickness": 0.7,
        "color": "#bbbbbb",
    }


def _html(figure: go.Figure) -> str:
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=CHART_CONFIG))
