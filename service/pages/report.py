"""The report page: charts, tables and text in one self-contained HTML file."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kinship.checkpoints.references import short_names
from kinship.measures.matrix import KinshipMatrix
from kinship.output import output_file
from search.history.comparisons import first_alike
from service.pages.charts import (
    best_by_evaluations,
    drawn,
    family_tree,
    front_chart,
    kinship_heatmap,
    pairs_heatmap,
    scores_by_generation,
)
from service.pages.contents import RunContents
from service.pages.environment import page_environment
from service.pages.paper import gain_chart, top_chart

if TYPE_CHECKING:
    from service.answers.matrix import Matrix

MOST_LISTED = 1000  # individuals in the table
CHART_CONFIG = {"displaylogo": False, "responsive": True, "toImageButtonOptions": {"format": "svg"}}


def write_report(path: Path, views: Mapping[str, RunContents], title: str, *, force: bool = False) -> None:
    """Write the report of one or more runs (by label) to ``path``; about 2 MB, of which Plotly is nearly all."""
    template = page_environment().get_template("report.html")
    page = template.render(
        title=title,
        plotly_js=plotly_script(),
        comparison=_chart(best_by_evaluations(views)) if len(views) > 1 else "",
        runs=[_section(label, view) for label, view in views.items()],
        identical=_identical(views),
    )
    with output_file(path, force=force) as partial:
        partial.write_text(page, encoding="utf-8")


def _identical(views: Mapping[str, RunContents]) -> list[tuple[str, str]]:
    """Labels of runs that are an earlier one again."""
    labels, alike = list(views), first_alike([view.run.individuals for view in views.values()])
    return [(label, labels[same]) for label, same in zip(labels, alike, strict=True) if same is not None]


def matrix_page(matrix: KinshipMatrix) -> str:
    """An interactive heatmap that needs nothing else: hover for values, export as SVG; about 1.6 MB."""
    title = f"{matrix.spec.label} to {short_names([matrix.base])[0]}: {len(matrix.ids)} models"
    return (
        page_environment()
        .get_template("matrix.html")
        .render(title=title, plotly_js=plotly_script(), heatmap=_chart(kinship_heatmap(matrix)), tensors=matrix.tensors)
    )


def groups_page(answer: "Matrix", by: str) -> str:
    """Every pair by every layer, module or tensor (``by``) as a heatmap, above that of whole models."""
    matrix = answer.matrix()
    title = f"{matrix.spec.label} to {short_names([matrix.base])[0]} by {by}: {len(matrix.ids)} models"
    charts = _chart(pairs_heatmap(answer.by_group(), by)) + _chart(kinship_heatmap(matrix))
    return (
        page_environment()
        .get_template("matrix.html")
        .render(title=title, plotly_js=plotly_script(), heatmap=charts, tensors=matrix.tensors)
    )


def plotly_script() -> str:
    """The part of Plotly that draws in a plane, a third of the whole."""
    return (files("service") / "static/vendor/plotly-cartesian.min.js").read_text(encoding="utf-8")


def _section(label: str, view: RunContents) -> dict[str, Any]:
    export = view.export
    people = {person["id"]: person for person in export["individuals"]}
    offspring = [person for person in export["individuals"] if person["generation"] > 0]
    ranked = sorted(view.run.individuals, key=lambda person: person.place)
    recipe = view.best_recipe
    return {
        "label": label,
        "verdict": view.run.verdict,
        "exploration": view.run.exploration_told,
        "stopped": export["stopped"] or "not finished",
        "offspring": len(offspring),
        "generations": max((person["generation"] for person in offspring), default=0),
        "failed": sum(person["error"] is not None for person in offspring),
        "best_offspring": export["best_offspring"],
        "best_founder": export["best_founder"],
        "gain": export["gain_over_best_founder"],
        "comparisons": export["comparisons"],
        "conditions": export["conditions"],
        "individuals": [people[person.id] for person in ranked[:MOST_LISTED]],
        "unlisted": max(0, len(export["individuals"]) - MOST_LISTED),
        "tasks": list(next(iter(export["individuals"][0]["scores"].values()), {"tasks": {}})["tasks"]),
        "people": people,
        "splits": view.run.splits,
        "metric": view.kinship.metric,
        "config": yaml.safe_dump(export["config"], sort_keys=False),
        "recipe": recipe.to_yaml() if recipe else "",
        "scores_chart": _chart(scores_by_generation(view)),
        "tree_chart": _chart(family_tree(view)),
        "drawn": len(drawn(export)),
        "front": [people[id] for id in export["pareto_front"]],
        "front_chart": _chart(front_chart(view)) if export["pareto_front"] else "",
        "heatmap": _chart(kinship_heatmap(view.kinship)),
        "gain_words": view.run.gain.words,
        "gain_chart": _chart(gain_chart(view)) if view.run.gain.n else "",
        "top": view.top,
        "k": strategy.get("k") if isinstance(strategy := view.run.config.get("strategy"), dict) else None,
        "top_chart": _chart(top_chart(view)) if view.top else "",
        "metrics": {name: task.metric for name, task in view.run.tasks.items()},
        "merges": sorted(offspring, key=lambda person: person["generation"])[:MOST_LISTED],
        "leaders": set(view.run.best_so_far),
    }


def _chart(figure: Any) -> str:
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=CHART_CONFIG))
