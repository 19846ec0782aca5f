"""What the charts of a run are drawn from, as plain data that is small to send."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from search.history.export import merge_gain
from search.history.lineage import shown
from search.ledger.ledger import Ledger
from search.ledger.records import Record, Standings, best_so_far, front
from search.strategies.recipes import BASE
from service.http.looking import RunView

MOST_RELATED = 120  # individuals in the heatmap
MOST_GENERATIONS = 200  # the latest, whose top k are looked at

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


def correlation(pairs: Iterable[tuple[float, float]]) -> dict[str, float | int | None]:
    """Pearson's r of so many pairs, and p: how likely an r as far from 0 is among unrelated normal numbers (t test).

    >>> correlation([(0, 0), (1, 1), (2, 1), (3, 3)])
    {'n': 4, 'r': 0.9233805, 'p': 0.07661948, 'slope': 0.9, 'intercept': -0.1}
    """
    from scipy.special import stdtr

    table = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
    count = len(table)
    nothing: dict[str, float | int | None] = {"n": count, "r": None, "p": None, "slope": None, "intercept": None}
    if count < 3 or np.ptp(table, axis=0).min() == 0:
        return nothing
    x, y = (table - table.mean(axis=0)).T
    r = float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1, 1))
    p = 0.0 if abs(r) == 1 else float(2 * stdtr(count - 2, -abs(r) * math.sqrt((count - 2) / (1 - r * r))))
    slope = float(x @ y / (x @ x))
    middle = table.mean(axis=0)
    found = {"r": r, "p": p, "slope": slope, "intercept": float(middle[1] - slope * middle[0])}
    return nothing | {name: _short(value) for name, value in found.items()}


def kinship_of(ledger: Ledger, view: RunView) -> dict[str, Any]:
    """Kinship of everybody, of a large run of those worth showing, and the mean among the top k by generation."""
    from merging.offspring.span import Span

    facts = ledger.facts()
    assert facts is not None
    strategy = facts.config.strategy
    tops = _tops(view.records, strategy.k)
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
        "top": [
            [generation, _short(_mean(matrix.values, [place[id] for id in top if id in place])), top]
            for generation, top in tops.items()
        ],
    }


def front_of(view: RunView) -> list[str]:
    """The Pareto front of several tasks."""
    scored = next((record for record in view.records if "search" in record.scores), None)
    return front(view.records) if scored and len(scored.scores["search"].tasks) > 1 else []


def gains_of(view: RunView) -> list[tuple[float, float]]:
    """Of everybody who has both: kinship of the parents, and the gain of the merge in hundredths."""
    by_id = {record.id: record for record in view.records}
    gains = ((record.kinship, merge_gain(record, by_id)) for record in view.records)
    return [(kinship, 100 * gain) for kinship, gain in gains if kinship is not None and gain is not None]


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


def _tops(records: Sequence[Record], k: int) -> dict[int, list[str]]:
    standings, tops = Standings(), dict[int, list[str]]()
    last = max((record.generation for record in records), default=0)
    for record in sorted(records, key=lambda record: record.generation):
        standings.add(record)
        if record.generation > last - MOST_GENERATIONS:
            tops[record.generation] = standings.top(k)
    return {generation: top for generation, top in tops.items() if len(top) > 1}


def _mean(values: Any, places: list[int]) -> float | None:
    if len(places) < 2:
        return None
    upper = np.triu_indices(len(places), 1)
    return float(values[np.ix_(places, places)][upper].mean())


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
