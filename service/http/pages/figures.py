"""What the charts of a run are drawn from, as plain data that is small to send."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.history.export import merge_gain
from search.history.lineage import shown
from search.ledger.ledger import Ledger
from search.ledger.records import Record, best_so_far, front
from search.strategies.recipes import BASE
from service.answers.gains import related_tops, tops_of
from service.http.looking import RunView

MOST_RELATED = 120  # individuals in the heatmap

COLUMNS = (
    "id", "generation", "role", "parents", "kinship", "value", "stderr", "complete", "held_out", "held_out_stderr",
    "gain", "error", "twin", "tasks",
)  # fmt: skip


def rows_of(view: RunView, first: int) -> list[list[Any]]:
    """Individuals from the place ``first`` on, in the order proposed; in each row what `COLUMNS` names."""
    by_id = {record.id: record for record in view.records}
    return [_row(record, by_id) for record in view.records[first:]]


def settled(records: Sequence[Record]) -> int:
    """How many there are before the first whom the search still waits for: their rows change no more until its end."""
    return next((place for place, record in enumerate(records) if not record.done), len(records))


def kinship_of(ledger: Ledger, view: RunView) -> dict[str, Any]:
    """Kinship of everybody, of a large run of those worth showing, and the mean among the top k by generation."""
    from merging.offspring.span import Span

    facts = ledger.facts()
    assert facts is not None
    strategy = facts.config.strategy
    tops = tops_of(view.records, strategy.k)
    chosen = shown(_outline(view.records), MOST_RELATED)
    wanted = dict.fromkeys([*chosen, *(id for top in tops.values() for id in top)])
    genomes = ledger.genomes(id for id in wanted if id != BASE)
    if len(genomes) < 2:
        return {"metric": strategy.metric, "ids": [], "values": [], "top": []}
    matrix = Span.over(ledger.table()).kinship(genomes, strategy.metric)
    place = {id: index for index, id in enumerate(matrix.ids)}
    ids = [id for id in chosen if id in place]
    return {
        "metric": strategy.metric,
        "k": strategy.k,
        "ids": ids,
        "values": [[_short(matrix.values[place[one], place[other]]) for other in ids] for one in ids],
        "top": [[top.generation, _short(top.kinship), top.ids] for top in related_tops(tops, matrix)],
    }


def front_of(view: RunView) -> list[str]:
    """The Pareto front of several tasks."""
    scored = next((record for record in view.records if "search" in record.scores), None)
    return front(view.records) if scored and len(scored.scores["search"].tasks) > 1 else []


def _row(record: Record, by_id: Mapping[str, Record]) -> list[Any]:
    search, held_out = record.scores.get("search"), record.scores.get("held_out")
    return [
        record.id, record.generation, record.role, list(record.parents), _short(record.kinship),
        _short(search and search.value), _short(search and search.stderr), int(search.complete) if search else None,
        _short(held_out and held_out.value), _short(held_out and held_out.stderr), _short(merge_gain(record, by_id)),
        record.error, record.twin, [_short(value) for value in search.tasks.values()] if search else [],
    ]  # fmt: skip


def _short(value: Any) -> float | None:
    """Seven digits: more than a screen shows, at half the length."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def _outline(records: Sequence[Record]) -> dict[str, Any]:
    """What `shown` reads of an export."""
    return {
        "best_so_far": best_so_far(records),
        "individuals": [
            {
                "id": record.id, "generation": record.generation, "parents": record.parents,
                "scores": {split: {"value": score.value} for split, score in record.scores.items()},
            }
            for record in records
        ],
    }  # fmt: skip
