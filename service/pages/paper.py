"""The report's two figures of the paper: merge gain against kinship, and kinship among the best by generation.

Hu et al., arXiv 2410.12613, figures 2 and 4.
"""

import plotly.graph_objects as go

from kinship.outside import in_chart
from service.pages.charts import BLUE, GREY, LAYOUT, ORANGE
from service.pages.contents import RunContents

SATURATED = 0.9  # kinship among the best, above which the paper stops early


def gain_chart(view: RunContents) -> go.Figure:
    """A dot for each child that has a score, as have its parents; and the least-squares line."""
    born = [
        (person, person.kinship_of_parents, person.merge_gain)
        for person in view.run.individuals
        if person.kinship_of_parents is not None and person.merge_gain is not None
    ]
    kinships = [kinship for _, kinship, _ in born]
    figure = go.Figure()
    figure.add_scatter(
        x=kinships,
        y=[gain for *_, gain in born],
        text=[f"{in_chart(person.id)}: {in_chart(' x '.join(person.parents))}" for person, *_ in born],
        mode="markers",
        marker={
            "color": [person.generation for person, *_ in born],
            "colorscale": "Cividis",
            "showscale": True,
            "colorbar": {"title": "generation", "dtick": 1},
            "size": 9,
            "line": {"color": "#333", "width": 0.5},
        },
        hovertemplate="%{text}<br>kinship %{x:.3f}, gain %{y:+.4f}<extra></extra>",
        name="merges",
    )
    if view.run.gain.slope is not None and view.run.gain.intercept is not None:
        ends = [min(kinships), max(kinships)]
        figure.add_scatter(
            x=ends,
            y=[view.run.gain.intercept + view.run.gain.slope * end for end in ends],
            mode="lines",
            line={"color": ORANGE, "dash": "dash"},
            hoverinfo="skip",
            name="least squares",
        )
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    figure.update_layout(**LAYOUT, height=400, showlegend=False)
    figure.update_xaxes(title=f"kinship of the parents ({view.kinship.metric})")
    figure.update_yaxes(title="merge gain: score less the parents' mean")
    return figure


def top_chart(view: RunContents) -> go.Figure:
    """Mean kinship of the best so far after each generation."""
    figure = go.Figure()
    figure.add_scatter(
        x=[top.generation for top in view.top],
        y=[top.kinship for top in view.top],
        text=[in_chart(", ".join(top.ids)) for top in view.top],
        mode="lines+markers",
        line={"color": BLUE},
        hovertemplate="generation %{x}: %{y:.3f}<br>%{text}<extra></extra>",
    )
    if view.kinship.metric in {"pcc", "cosine"}:
        figure.add_hline(y=SATURATED, line={"color": ORANGE, "dash": "dot", "width": 1})
    figure.update_layout(**LAYOUT, height=320, showlegend=False)
    figure.update_xaxes(title="generation (0: founders)", dtick=1)
    figure.update_yaxes(title=f"kinship among the top k ({view.kinship.metric})", rangemode="tozero")
    return figure
