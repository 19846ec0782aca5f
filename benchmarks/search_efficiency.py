"""What each search strategy finds by how many evaluations, on families that nobody chose.

For every (base, seed) pair: a family of a base and its fine-tunes, every strategy run for 60 evaluations on the search
split, and at every count of evaluations the held-out score of whoever is best on the search split by then. Founders'
own scores are not counted as evaluations; a strategy that stops early carries its score forward.

    python benchmarks/search_efficiency.py --work WORK [--quick]         the demo's families
    python benchmarks/search_efficiency.py --work WORK --stories DIR     grown from a small story model

Families are trained (a minute each) and every score is kept under --work, so that a run that was stopped goes on.
Several processes may share the work: give each some of the pairs by --pairs, then summarise with --summary.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["KINSHIP_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from efficiency_families import DEMO_PAIRS, STORY_PAIRS, Pair, Setting, demo_setting, story_setting

from evaluators.base import Candidate
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from evaluators.scores.score import Score
from kinship.checkpoints.opening import open_checkpoint
from kinship.measures.alignment import Alignment
from kinship.measures.gram import gram_table
from merging.offspring.span import Genome, Span, genome_identity
from merging.offspring.weights import materialise
from search.strategies.base import Context, Individual
from search.strategies.make import make_strategy
from search.strategies.settings import MergeSettings, StrategySettings
from service.demo.family import DEMO, TINY

BUDGET = 60
MARKS = (10, 20, 40, 60)
REFERENCE = "vanilla"
STRATEGIES: dict[str, dict[str, Any]] = {
    "vanilla": {"variant": "vanilla"},
    "auto": {"name": "auto"},
    "kinship": {"variant": "kinship"},
    "random partner": {"variant": "random"},
    "greedy soup": {"name": "soup"},
    "soup, then scale": {"name": "soup", "scale_steps": 6},
    "vanilla, then scale": {"variant": "vanilla", "scale_steps": 6},
    "complementary": {"variant": "complementary"},
    "tpe": {"name": "optuna"},
    "kinship kernel": {"name": "bayesian", "kernel": "kinship"},
    "cma-es": {"name": "optuna", "sampler": "cmaes"},
    "random points": {"name": "random"},
}


class Arena:
    """One family under evaluation; results are remembered by weights and document."""

    def __init__(self, setting: Setting, cache: ScoreCache) -> None:
        self._models = [open_checkpoint(str(path), id=id) for id, path in setting.models.items()]
        self.span = Span.over(gram_table(self._models[0], self._models[1:], Alignment(tuple(self._models[0].tensors))))
        self._digests = {model.id: model.digest for model in self._models}
        self._scorer = CachedEvaluator(setting.evaluator(self._models[0]), cache)
        self.genomes = {id: self.span.founder(id) for id in self.span.ids}
        self.scores: dict[str, Score] = {}

    def score(self, genome: Genome, split: str) -> Score:
        identity = genome_identity(genome, self.span, self._digests)
        candidate = Candidate(identity[:12], identity, lambda: materialise(genome, self.span.names, self._models))
        return self._scorer.score(candidate, split)  # type: ignore[arg-type]

    def individual(self, id: str, generation: int, parents: Sequence[str] = (), role: Any = "founder") -> Individual:
        score = self.scores[id] = self.score(self.genomes[id], "search")
        tasks = {task.task: task.estimate.value for task in score.tasks}
        return Individual(id, generation, score.value, tuple(parents), role, score.estimate.stderr, True, tasks)

    def both(self, id: str) -> tuple[float, float]:
        """Search and held-out score of an individual."""
        return self.scores[id].value, self.score(self.genomes[id], "held_out").value

    def context(self) -> Context:
        people = {id: self.individual(id, 0) for id in self.span.ids}
        return Context(
            people["base"],
            tuple(people[id] for id in self.span.ids[1:]),
            self.span.names,
            self._closeness,
            self._complementarity,
            lambda: self.span.table.grams.sum(axis=0),  # type: ignore[union-attr]
        )

    def _closeness(self, one: str, other: str) -> float:
        return self.span.kinship({id: self.genomes[id] for id in (one, other)})[one, other]

    def _complementarity(self, one: str, other: str) -> float:
        better, worse = sorted((one, other), key=lambda id: (-self.scores[id].value, id))
        values = [np.concatenate([task.values for task in self.scores[id].tasks]) for id in (better, worse)]
        return float((values[1] > values[0]).mean())


def run(arena: Arena, settings: Mapping[str, Any], seed: int, budget: int) -> dict[str, Any]:
    """The course of one search: for each evaluation the best so far on the search split, and its held-out score."""
    context = arena.context()
    strategy = make_strategy(StrategySettings.model_validate(settings), MergeSettings(), context, seed, budget)
    course: list[tuple[float, float]] = []
    best, generation = -np.inf, 0
    thinking = 0.0
    while len(course) < budget:
        started = time.process_time()
        proposals = strategy.ask()[: budget - len(course)]
        thinking += time.process_time() - started
        if not proposals:
            break
        generation += 1
        results = []
        for number, proposal in enumerate(proposals, 1):
            id = f"{generation}-{number}"
            arena.genomes[id] = arena.span.merge(proposal.recipe, arena.genomes)
            child = arena.individual(id, generation, proposal.parents, proposal.role)
            results.append(child)
            if child.score is not None and child.score > best:
                best, held_out = arena.both(id)
            course.append((best, held_out))
        strategy.tell(results)
    return {"course": course, "cpu_seconds_a_batch": thinking / max(generation, 1)}


def measure(pair: Pair, setting: Setting, names: Sequence[str], work: Path, budget: int) -> None:
    """Run the strategies on one pair, each recorded when it is done."""
    arena = Arena(setting, ScoreCache(work / f"scores-{pair.kind}-{pair.base}.sqlite"))
    record = work / f"runs-{pair.kind}-{pair.base}-{pair.seed}.json"
    runs = json.loads(record.read_text()) if record.exists() else {}
    if "founders" not in runs:
        runs["founders"] = {founder.id: arena.both(founder.id) for founder in arena.context().founders}
    for name in names:
        if name in runs:
            continue
        runs[name] = run(arena, STRATEGIES[name], pair.seed, budget)
        partial = record.with_suffix(".tmp")
        partial.write_text(json.dumps(runs))
        partial.replace(record)
        print(f"{pair.kind} {pair.base}/{pair.seed} {name}: {len(runs[name]['course'])} evaluations", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where families, scores and results are kept")
    parser.add_argument("--stories", type=Path, help="folder of a small model and of sentence pairs: see the docs")
    parser.add_argument("--pairs", nargs="*", help="some of the pairs, as BASE/SEED; default: all")
    parser.add_argument("--strategies", nargs="*", choices=[*STRATEGIES], default=[*STRATEGIES])
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument(
        "--limit", type=int, default=128, help="documents of a task in the search split; held-out: twice as many"
    )
    parser.add_argument(
        "--evaluator",
        choices=["harness", "direct"],
        default="harness",
        help="direct: the tasks' metric without lm-eval, checked against it on every family, and faster",
    )
    parser.add_argument("--quick", action="store_true", help="a tiny family of the demo's kind, a few evaluations")
    parser.add_argument("--summary", action="store_true", help="only summarise what is there")
    parser.add_argument("--out", type=Path, help="JSON and figure of the summary go here, as OUT.json and OUT.svg")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pairs = STORY_PAIRS if options.stories else DEMO_PAIRS
    chosen = [pair for pair in pairs if not options.pairs or f"{pair.base}/{pair.seed}" in options.pairs]
    family = DEMO
    if options.quick:
        family, chosen, options.budget = TINY, chosen[:1], min(MARKS)
    if not options.summary:
        for pair in chosen:
            if options.stories:
                setting = story_setting(options.stories, options.work, pair, options.limit, options.evaluator)
            else:
                setting = demo_setting(options.work, pair, options.limit, options.evaluator, family)
            measure(pair, setting, options.strategies, options.work, options.budget)
    from efficiency_summary import summarise

    marks = [mark for mark in MARKS if mark <= options.budget]
    summarise(options.work, chosen, options.strategies, REFERENCE, marks, options.out)


if __name__ == "__main__":
    main()
