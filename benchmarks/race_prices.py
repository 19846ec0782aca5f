"""What a race saves by knowing what documents cost, on recorded results; nothing is evaluated.

    python benchmarks/race_prices.py SCORES.sqlite... [--races 15]

SCORES: score caches of `search_efficiency.py`, one family each: base and founders come first there. In each of the
replicates 32 of its offspring, drawn at random, come in batches of 8, and tasks get prices at random. Printed: the
share of the price of scoring them all that is spent, without and with prices; wrong stops (of a model among the three
best of its time); what the best of those scored in full lacks of the best of all.
"""

import argparse
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluators.cache import ScoreCache
from evaluators.racing.race import Race, RaceSettings
from evaluators.scores.score import Results

K, OFFSPRING, BATCH, FOUNDERS = 3, 32, 8, 6
PATTERNS = ((1.0, 5.0, 20.0), (1.0, 1.0, 6.0))
DOCUMENTS = 128  # of a task, those of the search split


def recorded(file: Path) -> tuple[dict[str, list[int]], dict[str, Results]]:
    """The search documents by task, and the results on them by model, in the order of evaluation."""
    cache, models = ScoreCache(file), dict[str, dict[str, dict[int, float]]]()
    with sqlite3.connect(file) as connection:
        for key, blob, model, task in connection.execute(
            "SELECT key, documents, model, task FROM results ORDER BY rowid"
        ):
            models.setdefault(model, {})[task] = cache._unpack(key, blob)
    alone = [results for results in models.values() if all(len(values) == DOCUMENTS for values in results.values())]
    tasks = {task: sorted(set.intersection(*(set(results[task]) for results in alone))) for task in alone[0]}
    return tasks, {
        id: {task: {document: results[task][document] for document in ids} for task, ids in tasks.items()}
        for id, results in models.items()
    }


def score(results: Results) -> float:
    return float(np.mean([np.mean(list(values.values())) for values in results.values()]))


def search(
    tasks: Mapping[str, Sequence[int]],
    models: Mapping[str, Results],
    order: Sequence[str],
    prices: Mapping[str, float],
    known: bool,
    seed: int,
) -> tuple[float, int, int, float]:
    """Share of the price spent, wrong stops, stops, and points lost, of races one after another."""
    base, *founders = list(models)[: FOUNDERS + 1]
    complete = {id: models[id] for id in founders}
    spent, wrong, stops = 0.0, 0, 0
    settings = RaceSettings(enabled=True)
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        controls = {base: models[base]}
        race = Race(settings, tasks, complete, batch, K, seed, controls=controls, prices=prices if known else None)
        while asked := race.ask():
            spent += sum(len(ids) * prices[task] for block in asked.values() for task, ids in block.items())
            race.tell({id: models[id] for id in asked})
        truth = {id: score(models[id]) for id in [*complete, *batch]}
        best = sorted(truth, key=lambda id: (-truth[id], id))[:K]
        wrong += sum(id in best for id in race.stopped())
        stops += len(race.stopped())
        complete |= {id: models[id] for id in batch if id not in race.stopped()}
    whole = len(order) * sum(len(ids) * prices[task] for task, ids in tasks.items())
    ideal = max(score(models[id]) for id in [*founders, *order])
    return spent / whole, wrong, stops, 100 * (ideal - max(map(score, complete.values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, nargs="+")
    parser.add_argument("--races", type=int, default=15, help="replicates")
    options = parser.parse_args()
    for file in options.scores:
        tasks, models = recorded(file)
        offspring = list(models)[FOUNDERS + 1 :]
        for pattern in PATTERNS:
            found = []
            for seed in range(options.races):
                draw = np.random.default_rng([seed, len(offspring)])
                order = draw.permutation(offspring)[:OFFSPRING].tolist()
                prices = {
                    str(task): pattern[place % len(pattern)] for place, task in enumerate(draw.permutation(list(tasks)))
                }
                found.append([search(tasks, models, order, prices, known, seed) for known in (False, True)])
            (plain, *_), (priced, *_) = (np.array(found)[:, side].T for side in (0, 1))
            totals = np.array(found).sum(axis=0)
            error = 2.1 * (plain - priced).std(ddof=1) / len(plain) ** 0.5
            print(
                f"{file.name}, {len(models)} models, {sum(map(len, tasks.values()))} documents, prices {pattern}: "
                f"spent {plain.mean():.1%} without and {priced.mean():.1%} with prices, {(plain - priced).mean():.1%} "
                f"+- {error:.1%} less; wrong stops {totals[0][1]:.0f} of {totals[0][2]:.0f}, {totals[1][1]:.0f} of "
                f"{totals[1][2]:.0f}; lost {totals[0][3] / len(plain):.2f}, {totals[1][3] / len(plain):.2f} points"
            )


if __name__ == "__main__":
    main()
