"""A search with all its outputs: what `kinship evolve` and the demo have in common.

DIR/ledger.sqlite     the truth: every individual, score and failure (ledger.json: in which database that is)
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
from evaluators.scores.splits import Split
from kinship.checkpoints.references import parse_reference, resolved
from kinship.output import output_file, require_writable
from kinship.pictures.family import family_figure
from kinship.pictures.plots import heatmap
from merging.merge import licences
from merging.offspring.weights import cast, common_dtype
from merging.output.folder import Told, foreign_in_model, write_model_folder
from merging.recipe.documents import TooManyMerges
from search.config import RunConfig
from search.history.descent import Descent, renamed
from search.ledger.location import BEST
from search.ledger.records import Record, best_offspring
from search.running.coordinator import Search
from search.running.events import Observer
from search.strategies.make import resolved_name
from search.strategies.recipes import BASE
from service.answers.replaced import inputs_of_run
from service.pages.charts import drawn
from service.pages.contents import RunContents
from service.pages.files import save_figure
from service.pages.report import write_report

REPORT, RECIPE = "report.html", "best-offspring.yml"


def run_evolution(
    config: RunConfig,
    folder: Path,
    *,
    root: Path,
    cache: ScoreCache | None,
    observer: Observer,
    ledger: str | None = None,
    told: Told = lambda text: None,
    force: bool = False,
) -> RunContents:
    """Run the search in ``folder`` to its end, or resume it, and write every output; returns what was found.

    ``ledger``: the URL of a run in a database; by default it is in the folder. ``told`` is told of files of the models
    that the best offspring's folder lacks. ``force``: another run in ``folder`` is replaced. Raises `OutputExists`,
    before anything is done, where the best offspring's folder could not be written in the end.
    """
    require_writable(
        folder / BEST, force=True, folder=foreign_in_model, inputs=[] if force else inputs_of_run(config, root)
    )
    with Search(config, folder, root=root, ledger=ledger, cache=cache, observer=observer, force=force) as search:
        search.run()
        observer("phase", {"phase": "writing"})
        _write_text(folder / "run.yml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        view = RunContents.of(search.ledger)
        best = best_offspring(search.records)
        if best is not None:
            write_best(search, best, folder, root, view.run.verdict, told)
    _write_text(folder / "export.json", view.run.canonical())
    _write_text(folder / "kinship.csv", view.kinship.to_csv())
    save_figure(heatmap(view.kinship), folder / "kinship.png", force=True)
    figure = family_figure(drawn(view.export))
    for suffix in ("png", "svg"):
        save_figure(figure, folder / f"lineage.{suffix}", force=True)
    write_report(folder / REPORT, {label_of(config): view}, f"Merge search: {folder.name}", force=True)
    observer("finished", {"report": str(folder / REPORT), "verdict": view.run.verdict})
    return view


def write_best(
    search: Search, best: Record, folder: Path, root: Path, verdict: str = "", told: Told = lambda text: None
) -> None:
    """Write ``best`` as the model folder ``best-offspring`` and its recipe beside it, with paths that hold anywhere."""
    references, facts = search.config.references, search.facts
    records = {record.id: record for record in search.records}
    descent = Descent(search.span, records, facts.digests, search.genome, search.config.seed)
    parents, recipe = descent.parents(best.id), descent.last_step(best.id)
    try:
        whole = descent.recipe(best.id)
    except TooManyMerges as error:
        told(f"{folder / RECIPE} is not written. {error.message}")
        (folder / RECIPE).unlink(missing_ok=True)  # of a best one before
    else:
        recipe = renamed(whole, references)
        absolute = {id: str(resolved(parse_reference(path, root), root)) for id, path in references.items()}
        _write_text(folder / RECIPE, renamed(whole, absolute).to_yaml())
    terms = licences(search.models)

    def lineage() -> dict[str, Any]:
        search.require_unchanged()  # before the folder takes its name
        return {
            "schema": "kinship.lineage/2",
            "id": best.id,
            "base": references[BASE],
            "parents": [{"model": references[id], "digest": facts.digests[id]} for id in parents],
            "ancestry": descent.steps(best.id),
        }

    write_model_folder(
        folder / BEST,
        cast(search.candidate(best).tensors(), lambda name: common_dtype(name, search.models)),
        template=search.template,
        recipe=recipe,
        lineage=lineage,
        parents=[references[id] for id in parents],
        licences={references[id]: terms[id] for id in parents if id in terms},
        scores=_card_scores(best, facts.tasks, held_out=search.config.evaluate.search_fraction < 1),
        verdict=verdict,
        force=True,
        told=told,
    )


def label_of(config: RunConfig) -> str:
    """What a run is called among others: the strategy, of Top-k greedy merging its variant."""
    topk = resolved_name(config.strategy, config.merge) == "topk"
    return config.strategy.variant if topk else config.strategy.name


def _card_scores(best: Record, tasks: Mapping[str, Mapping[str, str]], *, held_out: bool) -> dict[str, float]:
    """Scores by task, metric and split; ``tasks``: with the metric of each."""
    split: Split = "held_out" if "held_out" in best.scores else "search"
    label = split.replace("_", "-") if held_out else "search, nothing held out"
    return {f"{task}, {tasks[task]['metric']} ({label})": value for task, value in best.scores[split].tasks.items()}


def _write_text(path: Path, text: str) -> None:
    with output_file(path, force=True) as partial:
        partial.write_text(text, encoding="utf-8")
