"""A search with all its outputs: what `kinship evolve` and the demo have in common.

DIR/ledger.sqlite     the truth: every individual, score and failure
DIR/run.yml           the run file as understood
DIR/export.json       the canonical export
DIR/best-offspring/   the best offspring as a model folder (DIR/best-offspring.yml: its recipe)
DIR/kinship.csv|png   kinship of all individuals
DIR/lineage.png|svg   the family tree
DIR/report.html       everything to look at
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from evaluators.cache import ScoreCache
from evaluators.splits import Split
from kinship.output import output_file
from kinship.plots import heatmap
from merging.folder import write_model_folder
from merging.materialise import cast, common_dtype
from merging.recipe import Recipe
from search.config import RunConfig
from search.coordinator import Observer, Search, best_offspring
from search.export import to_json
from search.ledger import Record
from search.lineage import lineage_of
from search.mating import BASE
from search.plots import lineage_figure
from service.figures import save_figure
from service.report.page import write_report
from service.report.view import RunView

REPORT = "report.html"


def run_evolution(config: RunConfig, folder: Path, *, root: Path, cache: ScoreCache, observer: Observer) -> RunView:
    """Run the search in ``folder`` to its end, or resume it, and write every output; returns what was found."""
    with Search(config, folder, root=root, cache=cache, observer=observer) as search:
        search.run()
        observer("phase", {"phase": "writing"})
        _write_text(folder / "run.yml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        best = best_offspring(search.records)
        if best is not None:
            _write_best(search, best, folder, root)
    view = RunView.open(folder)
    _write_text(folder / "export.json", to_json(view.export))
    _write_text(folder / "kinship.csv", view.kinship.to_csv())
    save_figure(heatmap(view.kinship), folder / "kinship.png", force=True)
    figure = lineage_figure(lineage_of(view.export))
    for suffix in ("png", "svg"):
        save_figure(figure, folder / f"lineage.{suffix}", force=True)
    write_report(folder / REPORT, {config.strategy.variant: view}, f"Merge search: {folder.name}", force=True)
    observer("finished", {"report": str(folder / REPORT), "verdict": view.verdict()})
    return view


def _write_best(search: Search, best: Record, folder: Path, root: Path) -> None:
    references = {BASE: search.config.base, **search.config.founders}
    recipe = search.span.recipe_of(best.genome)
    absolute = {id: str((root / Path(path).expanduser()).resolve()) for id, path in references.items()}
    _write_text(folder / "best-offspring.yml", _renamed(recipe, absolute).to_yaml())
    parents = sorted({references[str(entry.model)] for entry in recipe.models})
    write_model_folder(
        folder / "best-offspring",
        cast(search.candidate(best).tensors(), lambda name: common_dtype(name, search.models)),
        template=search.models[0],
        recipe=_renamed(recipe, references),
        lineage={
            "schema": "kinship.lineage/1",
            "id": best.id,
            "parents": [{"model": references[id], "digest": search.facts.digests[id]} for id in search.span.ids],
            "ancestry": _ancestry(search, best),
        },
        parents=parents,
        scores=_card_scores(best),
        force=True,
    )


def _ancestry(search: Search, best: Record) -> list[dict[str, Any]]:
    """Every merge on the way from the founders to ``best``, ancestors first."""
    needed, by_id = {best.id}, {record.id: record for record in search.records}
    for record in reversed(search.records):
        if record.id in needed:
            needed.update(by_id[record.id].parents)
    return [
        {"id": record.id, "parents": list(record.parents), "recipe": record.recipe}
        for record in search.records
        if record.id in needed and record.parents
    ]


def _card_scores(best: Record) -> dict[str, float]:
    split: Split = "held_out" if "held_out" in best.scores else "search"
    return {f"{task.task} ({split.replace('_', '-')})": task.estimate.value for task in best.scores[split].tasks}


def _renamed(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """The recipe with its models' ids replaced by references."""
    models = [entry.model_copy(update={"model": names[str(entry.model)]}) for entry in recipe.models]
    return recipe.model_copy(update={"models": models})


def _write_text(path: Path, text: str) -> None:
    with output_file(path, force=True) as partial:
        partial.write_text(text, encoding="utf-8")
