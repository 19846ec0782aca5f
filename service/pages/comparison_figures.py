"""The figures of a comparison of merge methods, as its report and its page show them."""

from collections.abc import Mapping
from math import log10
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kinship.outside import in_chart
from service.answers.method_comparison import ComparedRow, MethodComparison
from service.pages.charts import BLUE, DASHES, FAINT, GREY, LAYOUT, ORANGE, PALETTE

NAMES = {"held_in": "held-in", "unseen": "unseen"}
ACROSS = 4  # small panels in a row
WIDTH = 950  # of a picture in pixels, as a rule


def figures(answer: MethodComparison) -> dict[str, go.Figure]:
    """The five figures by name; those of which nothing was measured are left out."""
    made = {
        "scatter": held_in_against_unseen(answer),
        "grid": by_skill_and_domain(answer),
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
    drawn = [row for row in _scored(answer) if "unseen" in row.scores]
    if not drawn:
        return figure
    both = {row.label: (row.scores["held_in"], row.scores["unseen"]) for row in drawn}
    ends = [(x.low or x.value, y.low or y.value) for x, y in both.values()]
    ends += [(x.high or x.value, y.high or y.value) for x, y in both.values()]
    spots = _label_spots({label: (x.value, y.value) for label, (x, y) in both.items()}, ends, 400)
    for (kind, tuned), label in {
        ("method", False): "methods, untuned",
        ("method", True): "methods, tuned",
        ("baseline", False): "baselines",
        ("control", False): "controls",
    }.items():
        rows = [row for row in drawn if row.kind == kind and row.tuned == tuned]
        if not rows:
            continue
        colour, symbol = looks[kind]
        figure.add_scatter(
            x=[row.scores["held_in"].value for row in rows],
            y=[row.scores["unseen"].value for row in rows],
            error_x=_errors(rows, "held_in"),
            error_y=_errors(rows, "unseen"),
            text=[in_chart(row.label) if row.label in spots else "" for row in rows],
            hovertext=[in_chart(row.label) for row in rows],
            mode="markers+text",
            textposition=[spots.get(row.label, "top center") for row in rows],
            textfont={"size": 11},
            name=label,
            marker={"color": colour, "size": 10, "symbol": f"{symbol}-open" if tuned else symbol},
            hovertemplate="%{hovertext}<br>held-in %{x:.4f}, unseen %{y:.4f}<extra></extra>",
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
    """Seconds of merge and statistics against the scores of the untuned arm: a panel for each group of cells."""
    rows = {row.method: row for row in _scored(answer) if row.kind == "method" and not row.tuned}
    seconds = {
        cost.method: sum(part.seconds for part in (cost.merge, cost.statistics) if part)
        for cost in answer.costs
        if cost.merge and cost.method in rows
    }
    if not seconds:
        return go.Figure()
    figure = _panels([NAMES[group] for group in answer.rankings], 1, height=260)
    for place, group in enumerate(answer.rankings):
        scores = {method: rows[method].scores[group].value for method in seconds}
        dots = {method: (log10(seconds[method]), scores[method]) for method in seconds}
        spots = _label_spots(dots, list(dots.values()), 180)
        figure.add_scatter(
            x=list(seconds.values()),
            y=list(scores.values()),
            text=[in_chart(method) if method in spots else "" for method in seconds],
            hovertext=[in_chart(method) for method in seconds],
            mode="markers+text",
            textposition=[spots.get(method, "top center") for method in seconds],
            textfont={"size": 11},
            name=NAMES[group],
            showlegend=False,
            marker={"color": PALETTE[place], "size": 10, "symbol": "circle" if place == 0 else "diamond"},
            hovertemplate="%{hovertext}: %{x:.3f} s, %{y:.4f}<extra></extra>",
            row=place + 1,
            col=1,
        )
    figure.update_xaxes(type="log", dtick=1)
    figure.update_xaxes(title="seconds of one merge, statistics included", row=len(answer.rankings), col=1)
    figure.update_yaxes(title="score")
    return figure


def by_parameter(answer: MethodComparison) -> go.Figure:
    """Scores by the value of each parameter that is a number: a panel each, on one scale of scores."""
    lines = [
        (line, points)
        for line in answer.sensitivity
        for points in [[point for point in line.points if isinstance(point.value, int | float)]]
        if len(points) > 1
    ]
    if not lines:
        return go.Figure()
    titles = [in_chart(f"{line.method}, {line.parameter}") for line, _ in lines]
    figure = _panels(titles, ACROSS, height=170)
    for place, (line, points) in enumerate(lines):
        for group, colour, dash in zip(answer.rankings, PALETTE, DASHES, strict=False):
            figure.add_scatter(
                x=[point.value for point in points],
                y=[point.scores[group] for point in points],
                mode="lines+markers",
                name=NAMES[group],
                legendgroup=group,
                showlegend=place == 0,
                text=[in_chart(f"{line.method}, {line.parameter}")] * len(points),
                line={"color": colour, "dash": dash},
                hovertemplate=f"%{{text}} %{{x}}: %{{y:.4f}}<extra>{NAMES[group]}</extra>",
                row=place // ACROSS + 1,
                col=place % ACROSS + 1,
            )
    return figure


def by_skill_and_domain(answer: MethodComparison) -> go.Figure:
    """Skills by domains, where cells have both: a panel for each row of `_telling`; framed are the held-in cells."""
    places = {(cell.skill, cell.domain): name for name, cell in answer.cells.items() if cell.skill and cell.domain}
    skills, domains = (list(dict.fromkeys(each)) for each in zip(*places, strict=True)) if places else ([], [])
    rows = _telling(answer)
    if len(skills) < 2 or len(domains) < 2 or not rows:
        return go.Figure()
    across = min(3, len(rows))
    figure = _panels([in_chart(row.label) for row in rows], across, height=90 + 34 * len(skills))
    scores = [row.cells[name] for row in rows for name in places.values()]
    for number, row in enumerate(rows):
        at = {"row": number // across + 1, "col": number % across + 1}
        figure.add_heatmap(
            z=[
                [row.cells[places[skill, domain]] if (skill, domain) in places else None for domain in domains]
                for skill in skills
            ],
            x=[in_chart(domain) for domain in domains],
            y=[in_chart(skill) for skill in skills],
            zmin=min(scores),
            zmax=max(scores),
            colorscale="Cividis",
            showscale=number == 0,
            colorbar={"title": "score"},
            texttemplate="%{z:.2f}",
            xgap=3,
            ygap=3,
            hovertemplate=f"{in_chart(row.label)}, %{{y}}, %{{x}}: %{{z:.4f}}<extra></extra>",
            **at,
        )
        for (skill, domain), name in places.items():
            if answer.cells[name].held_in:
                x, y = domains.index(str(domain)), skills.index(str(skill))
                line = {"color": ORANGE, "width": 3}
                figure.add_shape(x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line=line, **at)
    figure.update_yaxes(autorange="reversed")
    return figure


def _telling(answer: MethodComparison) -> list[ComparedRow]:
    """The baselines that are models, the reference, and the method that is the best on each group of cells."""
    best = [ranking[0] for ranking in answer.rankings.values() if ranking]
    wanted = dict.fromkeys(["base", "nearest specialist", "multitask", answer.reference, *best])
    rows = {row.label: row for row in _scored(answer)}
    return [rows[label] for label in wanted if label in rows]


def _label_spots(dots: Mapping[str, tuple[float, float]], corners: Any, height: int) -> dict[str, str]:
    """Where beside each of the ``dots`` (x, y) its label lies free of dots and of labels before it; without a free spot
    a dot has none, and says what it is when pointed at.

    corners: points that are in the picture, (n, 2); height: of the picture in pixels, which is `WIDTH` of them wide.
    """
    span = np.ptp(np.array(corners), axis=0) * 1.1
    pixels = np.array([WIDTH, height]) / np.where(span > 0, span, 1)
    at = np.array(list(dots.values())) * pixels
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    found: dict[str, str] = {}
    for label, (x, y) in zip(dots, at, strict=True):
        wide, high = 6.5 * len(label), 14
        for spot, left, low in (
            ("top center", x - wide / 2, y + 6),
            ("bottom center", x - wide / 2, y - 6 - high),
            ("middle right", x + 6, y - high / 2),
            ("middle left", x - 6 - wide, y - high / 2),
        ):
            box = (left, low, left + wide, low + high)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                taken.append(box)
                found[label] = spot
                break
    return found


def _panels(titles: list[str], across: int, *, height: int) -> go.Figure:
    """Panels in rows of so many, each as high as ``height``, with its title."""
    down = -(-len(titles) // across)
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=titles,
        shared_yaxes="all" if across > 1 else False,
        horizontal_spacing=0.03,
        vertical_spacing=50 / (down * height),
    )
    figure.update_layout(**LAYOUT | {"margin": {"l": 60, "r": 20, "t": 60, "b": 40}}, height=100 + down * height)
    figure.update_layout(legend={"orientation": "h", "y": 1 + 45 / (down * height), "x": 0, "yanchor": "bottom"})
    figure.update_annotations(font={"size": 12})
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
        "width": 0,
        "color": FAINT,
    }
