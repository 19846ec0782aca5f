"""The canonical export of a run: everything that was found, nothing of when, where or in how many attempts.

Two runs with the same inputs and seed have equal exports, byte for byte, however often either was interrupted, and
whoever did the work.
"""

from collections.abc import Mapping
from typing import Any

from evaluators.scores.score import as_dict
from kinship.errors import LedgerError
from kinship.outside import json_text
from merging.recipe.documents import TooManyMerges
from search.history.comparisons import Differences, comparisons, controls
from search.history.descent import Descent
from search.history.exploration import explorations
from search.history.verdict import control_verdict, verdict
from search.ledger.ledger import Ledger
from search.ledger.records import Record, best_offspring, best_so_far, front
from search.strategies.recipes import BASE

SCHEMA = "kinship.run/5"


def export_run(ledger: Ledger) -> dict[str, Any]:
    """The run in ``ledger`` as one plain object: see docs/formats.md. Raises `LedgerError` for an empty ledger."""
    facts = ledger.facts()
    if facts is None:
        raise LedgerError(f"{ledger.location} holds no run yet.", hint="Start it with `kinship evolve`.")
    records = ledger.records()
    leaders = best_so_far(records)
    founders = [id for id in leaders if id in facts.digests]
    best = leaders[-1] if leaders else None
    offspring = best_offspring(records)
    by_id = {record.id: record for record in records}
    descent = Descent.recorded(ledger, facts, records)
    between = Differences(ledger, facts, by_id)
    gain = between.gain(offspring.id, founders[-1]) if offspring and founders else {}
    rows = comparisons(between, records)
    best_founder = founders[-1] if founders else None
    whole = facts.config.evaluate.search_fraction == 1
    beside = controls(ledger, facts, records, offspring)
    words = verdict(offspring.id if offspring else None, best_founder, rows, whole=whole)
    return {
        "schema": SCHEMA,
        "config": facts.config.to_record(),
        "digests": facts.digests,
        "tasks": facts.tasks,
        "conditions": facts.conditions,
        "stopped": ledger.stopped(),
        "base": BASE,
        "best": best,
        "best_founder": best_founder,
        "best_offspring": offspring.id if offspring else None,
        "best_so_far": leaders,
        "best_offspring_recipe": _recipe(descent, offspring.id) if offspring else None,
        "gain_over_best_founder": {split: as_dict(found) for split, found in gain.items()},
        "comparisons": rows,
        "controls": beside,
        "verdict": " ".join(filter(None, [words, control_verdict(beside)])),
        "exploration": explorations(records, facts.config),
        "pareto_front": front(records) if len(facts.tasks) > 1 else [],
        "individuals": [describe(record, by_id) for record in records],
    }


def _recipe(descent: Descent, id: str) -> dict[str, Any] | None:
    try:
        return descent.recipe(id).to_dict()
    except TooManyMerges:
        return None


def to_json(export: dict[str, Any]) -> str:
    """The export as text, the same bytes for equal exports."""
    return json_text(export, indent=1, sort_keys=True) + "\n"


def describe(record: Record, by_id: Mapping[str, Record]) -> dict[str, Any]:
    """One individual of the export; ``by_id`` has its parents."""
    return {
        "id": record.id,
        "generation": record.generation,
        "role": record.role,
        "parents": list(record.parents),
        "kinship_of_parents": record.kinship,
        "merge_gain": merge_gain(record, by_id),
        "recipe": record.recipe,
        "identity": record.identity,
        "twin": record.twin,
        "error": record.error,
        "scores": {split: dict(score.facts) for split, score in sorted(record.scores.items())},
    }


def merge_gain(record: Record, by_id: Mapping[str, Record]) -> float | None:
    """Score less the mean of the parents' scores (arXiv 2410.12613, section 3.1), on the search split."""
    parents = [by_id[parent].fitness for parent in record.parents]
    known = [score for score in parents if score is not None]
    if record.fitness is None or not known or len(known) < len(parents):
        return None
    return record.fitness - sum(known) / len(known)
