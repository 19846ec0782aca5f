"""The canonical export of a run: everything that was found, nothing of when, where or in how many attempts.

Two runs with the same inputs and seed have equal exports, byte for byte, however often either was interrupted.
"""

import json
from typing import Any

from evaluators.scores import as_dict
from kinship.errors import LedgerError
from merging.span import Span
from search.coordinator import best_offspring, best_so_far
from search.ledger import Ledger, Record
from search.mating import BASE

SCHEMA = "kinship.run/1"


def export_run(ledger: Ledger) -> dict[str, Any]:
    """The run in ``ledger`` as one plain object: see docs/formats.md. Raises `LedgerError` for an empty ledger."""
    facts = ledger.facts()
    if facts is None:
        raise LedgerError(f"{ledger.path} holds no run yet.", hint="Start it with `kinship evolve`.")
    records = ledger.records()
    span = Span.over(facts.table)
    leaders = best_so_far(records)
    founders = [id for id in leaders if id in facts.digests]
    best = leaders[-1] if leaders else None
    offspring = best_offspring(records)
    by_id = {record.id: record for record in records}
    return {
        "schema": SCHEMA,
        "config": facts.config,
        "digests": facts.digests,
        "stopped": ledger.stopped(),
        "base": BASE,
        "best": best,
        "best_founder": founders[-1] if founders else None,
        "best_offspring": offspring.id if offspring else None,
        "best_so_far": leaders,
        "best_offspring_recipe": span.recipe_of(offspring.genome).to_dict() if offspring else None,
        "gain_over_best_founder": _gain(offspring, by_id[founders[-1]]) if offspring and founders else {},
        "individuals": [_describe(record, by_id) for record in records],
    }


def to_json(export: dict[str, Any]) -> str:
    """The export as text, the same bytes for equal exports."""
    return json.dumps(export, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _describe(record: Record, by_id: dict[str, Record]) -> dict[str, Any]:
    return {
        "id": record.id,
        "generation": record.generation,
        "role": record.role,
        "parents": list(record.parents),
        "kinship_of_parents": record.kinship,
        "merge_gain": _merge_gain(record, by_id),
        "recipe": record.recipe,
        "identity": record.identity,
        "error": record.error,
        "scores": {split: score.to_dict() for split, score in sorted(record.scores.items())},
    }


def _gain(offspring: Record, founder: Record) -> dict[str, Any]:
    """Best offspring less best founder, by split, with the paired standard error."""
    both = sorted(offspring.scores.keys() & founder.scores.keys())
    return {split: as_dict(offspring.scores[split].gain_over(founder.scores[split])) for split in both}


def _merge_gain(record: Record, by_id: dict[str, Record]) -> float | None:
    """Score less the mean of the parents' scores (arXiv 2410.12613, section 3.1), on the search split."""
    parents = [by_id[parent].fitness for parent in record.parents]
    known = [score for score in parents if score is not None]
    if record.fitness is None or not known or len(known) < len(parents):
        return None
    return record.fitness - sum(known) / len(known)
