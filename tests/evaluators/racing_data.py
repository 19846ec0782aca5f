"""Results of made-up models: abilities by task, documents of all difficulties, noise of their own."""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluators.scores.score import Results

TASKS: dict[str, Sequence[int]] = {"large": range(0, 480, 2), "small": range(80)}


def make_results(
    abilities: Mapping[str, float],
    seed: int,
    tasks: Mapping[str, Sequence[int]] = TASKS,
    binary: bool = True,
    noise: float = 1.0,
) -> dict[str, Results]:
    """Full results by model; right where ability less difficulty and noise is positive, or that number itself."""
    generator = np.random.default_rng(seed)
    results: dict[str, dict[str, dict[int, float]]] = {id: {} for id in abilities}
    for task, documents in tasks.items():
        difficulty = generator.normal(scale=1.5, size=len(documents))
        for id, ability in abilities.items():
            margins = ability - difficulty + noise * generator.normal(size=len(documents))
            values = (margins > 0).astype(float) if binary else margins
            results[id][task] = dict(zip(documents, values.tolist(), strict=True))
    return results


def true_score(results: Results, tasks: Mapping[str, Sequence[int]] = TASKS) -> float:
    """The mean of the tasks' means."""
    return float(np.mean([np.mean([results[task][document] for document in tasks[task]]) for task in tasks]))


def part(results: Results, asked: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
    """The results asked for alone."""
    return {task: {document: results[task][document] for document in documents} for task, documents in asked.items()}
