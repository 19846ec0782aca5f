"""Racing and reduced evaluation on demo families: what they save, and what they change.

Searches are run in memory by the strategy itself, over families of tiny models trained with several seeds, on search
splits of several seeds, once with every offspring evaluated in full and once with each way of stopping early. Results
are kept by document under --work, so that a second call evaluates nothing it has seen. Printed for each way: documents
of offspring not evaluated (and of all models, founders and base included), runs whose final best model and whose final
three best are those of the full search, wrong stops (of a model that was among the three best of its time), and how
estimates of stopped models compare with their full scores.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.base import Candidate
from evaluators.cache import ScoreCache
from evaluators.racing.race import Race, RaceSettings
from evaluators.racing.reduced import pick
from evaluators.scores.score import Estimate, Results
from evaluators.scores.splits import split_documents
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.opening import open_checkpoint
from kinship.measures.alignment import Alignment
from kinship.measures.gram import gram_table
from merging.offspring.span import Genome, Span, genome_identity
from merging.offspring.weights import materialise
from search.strategies.base import Context, Individual
from search.strategies.recipes import BASE
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.topk import TopKGreedy
from service.demo.family import DEMO, TINY, FamilySettings, make_family
from service.demo.searches import MASTERED, MERGE

K = 3
GENERATIONS = 10
Tasks = Mapping[str, Sequence[int]]
Stopped = Mapping[str, Estimate]
Judge = Callable[[Tasks, Mapping[str, Results], Mapping[str, Results], int], tuple[Stopped, int]]
"""(tasks, full results of earlier models, of the batch, seed) -> (estimates of those stopped, documents evaluated)."""


class Family:
    """A demo family whose results are remembered by document and evaluated when first asked for."""

    def __init__(self, work: Path, seed: int, settings: FamilySettings = DEMO) -> None:
        self.family = make_family(work / f"family-{seed}", replace(settings, seed=seed))
        folders = {BASE: self.family.base, **{path.name: path for path in self.family.founders}}
        self.models = [open_checkpoint(path, id=id) for id, path in folders.items()]
        self.digests = {model.id: model.digest for model in self.models}
        self.span = Span.over(gram_table(self.models[0], self.models[1:], Alignment(tuple(self.models[0].tensors))))
        self.tasks = [name for name in self.family.task_names if name not in MASTERED]
        self._cache = ScoreCache(work / "scores.sqlite")
        self._known: dict[str, dict[str, dict[int, float]]] = {}

    def split(self, seed: int) -> dict[str, list[int]]:
        """Documents of the search split by task."""
        files = {task: self.family.tasks / f"{task.removeprefix('demo_')}.jsonl" for task in self.tasks}
        documents = {task: [json.loads(line) for line in file.read_text().splitlines()] for task, file in files.items()}
        return {task: split_documents(found, seed=seed)["search"] for task, found in documents.items()}

    def identity(self, genome: Genome) -> str:
        return genome_identity(genome, self.span, self.digests)

    def results(self, genome: Genome, tasks: Tasks) -> Results:
        """Results on ``tasks`` alone, from memory, from the cache, or by evaluation."""
        identity = self.identity(genome)
        kinds = {task.name: task for task in self._evaluator.tasks}
        known = self._known.setdefault(identity, {})
        for name, kind in kinds.items():
            if name not in known:
                known[name] = self._cache.load(identity, kind)
        missing = {name: [d for d in documents if d not in known[name]] for name, documents in tasks.items()}
        if any(missing.values()):
            candidate = Candidate(identity, identity, lambda: materialise(genome, self.span.names, self.models))
            for name, found in self._evaluator.run(candidate, missing).items():
                known[name] |= found
                self._cache.store(identity, kinds[name], found)
        return {name: {document: known[name][document] for document in tasks[name]} for name in tasks}

    @cached_property
    def _evaluator(self) -> Any:
        from evaluators.harness import Harness

        settings = EvaluateSettings(tasks=self.tasks, task_path=str(self.family.tasks), batch_size=256)
        return Harness(settings, self.models[0])


@dataclass
class Outcome:
    """A finished search: its best (identity, score), documents by use, and estimates with the truth of the stopped."""

    top: list[tuple[str, float]]
    evaluated: int = 0
    offspring: int = 0
    baseline: int = 0
    stops: list[tuple[Estimate, float, bool]] = field(default_factory=list)


def search(family: Family, tasks: Tasks, seed: int, judge: Judge | None = None) -> Outcome:
    """A vanilla top-k search of the demo; ``judge`` says who is stopped early."""
    genomes = {id: family.span.founder(id) for id in family.span.ids}
    results = {id: family.results(genome, tasks) for id, genome in genomes.items()}
    people = {id: Individual(id, 0, score(found), (), "founder") for id, found in results.items()}
    context = Context(
        people[BASE],
        tuple(people[id] for id in family.span.ids[1:]),
        family.span.names,
        lambda one, other: float(family.span.kinship({id: genomes[id] for id in (one, other)})[one, other]),
        lambda one, other: float("nan"),
        lambda: family.span.products(list(genomes.values())).sum(axis=0),
    )
    strategy = TopKGreedy(StrategySettings(variant="vanilla", k=K), MergeSettings(**MERGE), context, seed)
    documents = sum(len(ids) for ids in tasks.values())
    outcome = Outcome([], baseline=documents * len(genomes))
    for generation in range(1, GENERATIONS + 1):
        proposals = strategy.ask()
        if not proposals:
            break
        ids = [f"{generation}-{number}" for number in range(1, len(proposals) + 1)]
        for id, proposal in zip(ids, proposals, strict=True):
            genomes[id] = family.span.merge(proposal.recipe, genomes)
        batch = {id: family.results(genomes[id], tasks) for id in ids}
        stopped, evaluated = judge(tasks, results, batch, seed) if judge else ({}, documents * len(ids))
        outcome.evaluated += evaluated
        outcome.offspring += documents * len(ids)
        full = {id: score(found) for id, found in (results | batch).items() if id != BASE}
        best = sorted(full, key=lambda id: (-full[id], id))[:K]
        outcome.stops += [(estimate, full[id], id in best) for id, estimate in stopped.items()]
        for id, proposal in zip(ids, proposals, strict=True):
            value = stopped[id].value if id in stopped else full[id]
            people[id] = Individual(id, generation, value, proposal.parents, proposal.role, complete=id not in stopped)
        results |= {id: found for id, found in batch.items() if id not in stopped}
        strategy.tell([people[id] for id in ids])
    complete = [person for person in people.values() if person.complete and person.id != BASE]
    ranked = sorted(complete, key=lambda person: (-(person.score or 0.0), person.id))
    outcome.top = [(family.identity(genomes[person.id]), person.score or 0.0) for person in ranked[:K]]
    return outcome


def score(results: Results) -> float:
    return float(np.mean([np.mean(list(task.values())) for task in results.values()]))


def racing(**settings: Any) -> Judge:
    """Our race."""

    def judge(
        tasks: Tasks, references: Mapping[str, Results], batch: Mapping[str, Results], seed: int
    ) -> tuple[Stopped, int]:
        rivals = {id: found for id, found in references.items() if id != BASE}
        options = RaceSettings(enabled=True, **settings)
        race = Race(options, tasks, rivals, list(batch), K, seed, controls={BASE: references[BASE]})
        evaluated = 0
        while asked := race.ask():
            evaluated += sum(len(documents) for block in asked.values() for documents in block.values())
            race.tell({id: batch[id] for id in asked})
        return {id: verdict.estimate for id, verdict in race.stopped().items()}, evaluated

    return judge


def paired_z(threshold: float, looks: int = 10) -> Judge:
    """The baseline: a paired z-test against the third best on the same documents, after each tenth of them."""

    def judge(
        tasks: Tasks, references: Mapping[str, Results], batch: Mapping[str, Results], seed: int
    ) -> tuple[Stopped, int]:
        digest = hashlib.sha256(json.dumps([seed, *batch]).encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        order = {task: generator.permutation(documents) for task, documents in tasks.items()}
        known = {id: found for id, found in references.items() if id != BASE} | dict(batch)
        racing, stopped, evaluated = list(batch), dict[str, Estimate](), 0
        previous = 0
        for look in range(1, looks + 1):
            seen = [(task, d) for task, ids in order.items() for d in ids[: round(len(ids) * look / looks)]]
            evaluated += len(racing) * (len(seen) - previous)
            previous = len(seen)
            if look == looks:
                break
            values = {id: np.array([known[id][task][d] for task, d in seen]) for id in known if id not in stopped}
            ranked = sorted(values, key=lambda id: (-values[id].mean(), id))
            for id in [id for id in racing if ranked.index(id) >= K]:
                ahead = values[ranked[K - 1]] - values[id]
                error = ahead.std(ddof=1) / np.sqrt(len(ahead))
                if error and ahead.mean() / error > threshold:
                    racing.remove(id)
                    spread = values[id].std(ddof=1) / np.sqrt(len(seen))
                    stopped[id] = Estimate(float(values[id].mean()), float(spread))
        return stopped, evaluated

    return judge


WAYS: dict[str, Judge] = {
    "paired z > 2": paired_z(2.0),
    "paired z > 2.5": paired_z(2.5),
    "race, error rate 0.02": racing(error_rate=0.02),
    "race, error rate 0.05": racing(error_rate=0.05),
    "race, error rate 0.1": racing(error_rate=0.1),
    "race 0.05, reduced 0.1": racing(error_rate=0.05, reduced=0.1),
}


def report(pairs: Sequence[tuple[Outcome, Outcome]], name: str) -> None:
    """One line on (full, raced) outcomes."""
    raced = [outcome for _, outcome in pairs]
    saved = [1 - outcome.evaluated / outcome.offspring for outcome in raced]
    total = [1 - (o.evaluated + o.baseline) / (o.offspring + o.baseline) for o in raced]
    best = sum(full.top[0] == other.top[0] for full, other in pairs)
    three = sum({id for id, _ in full.top} == {id for id, _ in other.top} for full, other in pairs)
    loss = np.mean([full.top[0][1] - other.top[0][1] for full, other in pairs])
    stops = [stop for outcome in raced for stop in outcome.stops]
    errors = np.array([estimate.value - truth for estimate, truth, _ in stops] or [np.nan])
    scaled = errors / np.array([estimate.stderr for estimate, _, _ in stops] or [np.nan])
    print(
        f"{name:24} saved {np.mean(saved):5.1%} ({min(saved):.0%} to {max(saved):.0%}), of all {np.mean(total):5.1%}   "
        f"best same {best}/{len(pairs)}   three best same {three}/{len(pairs)}   lost {100 * loss:.2f} points   "
        f"wrong stops {sum(wrong for _, _, wrong in stops)}/{len(stops)}   estimate: bias {100 * errors.mean():+.2f}, "
        f"error {100 * np.sqrt((errors**2).mean()):.2f} points, {np.sqrt((scaled**2).mean()):.2f} standard errors",
        flush=True,
    )


def reduced(families: Sequence[Family], splits: Sequence[int]) -> None:
    """Estimates of offspring from a subset picked by founders and base, against full scores."""
    for share in (0.1, 0.2, 0.4):
        rows: dict[str, list[tuple[float, float, float]]] = {}
        ways: list[str] = []
        for family in families:
            for seed in splits:
                tasks = family.split(seed)
                genomes = {id: family.span.founder(id) for id in family.span.ids}
                founders = {id: family.results(genome, tasks) for id, genome in genomes.items()}
                context_free = MergeSettings(**MERGE)
                children = _first_generation(family, genomes, context_free, tasks)
                subset = pick(founders, tasks, share, seed)
                ways.append(subset.way)
                truth = np.array([score(child) for child in children])
                found = {"picked": np.array([subset.estimate(child).value for child in children])}
                generator = np.random.default_rng(seed)
                chosen = {
                    task: generator.permutation(ids)[: round(share * len(ids))].tolist() for task, ids in tasks.items()
                }
                found["random subset, mean"] = np.array(
                    [
                        score({task: {d: child[task][d] for d in ids} for task, ids in chosen.items()})
                        for child in children
                    ]
                )
                for name, values in found.items():
                    error = float(np.sqrt(((values - truth) ** 2).mean()))
                    rows.setdefault(name, []).append((error, float(np.corrcoef(values, truth)[0, 1]), subset.error))
        for name, figures in rows.items():
            error, correlation, foretold = np.mean(figures, axis=0)
            extra = (
                f", {100 * foretold:.2f} by cross-validation; ways { ({w: ways.count(w) for w in sorted(set(ways))}) }"
            )
            print(
                f"{share:4.0%} of documents, {name:20} error {100 * error:.2f} points, correlation {correlation:.3f}"
                + (extra if name == "picked" else ""),
                flush=True,
            )


def _first_generation(
    family: Family, genomes: Mapping[str, Genome], merge: MergeSettings, tasks: Tasks
) -> list[Results]:
    from itertools import combinations

    from search.strategies.recipes import recipe_for

    pairs = combinations(family.span.ids[1:], 2)
    return [family.results(family.span.merge(recipe_for(pair, merge), genomes), tasks) for pair in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="families and results are kept here")
    parser.add_argument("--families", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="seeds of the families")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3], help="seeds of the search splits")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--no-reduced", action="store_true", help="leave out the reduced evaluation")
    parser.add_argument("--quick", action="store_true", help="one tiny family, one split")
    options = parser.parse_args()
    if options.quick:
        options.families, options.splits = options.families[:1], options.splits[:1]
    options.work.mkdir(parents=True, exist_ok=True)
    pairs: dict[str, list[tuple[Outcome, Outcome]]] = {name: [] for name in options.ways}
    families = []
    for seed in options.families:
        families.append(Family(options.work, seed, TINY if options.quick else DEMO))
        for split in options.splits:
            tasks = families[-1].split(split)
            full = search(families[-1], tasks, split)
            for name in options.ways:
                pairs[name].append((full, search(families[-1], tasks, split, WAYS[name])))
            born = full.offspring // (full.baseline // len(families[-1].models))
            print(f"family {seed}, split {split}: {born} offspring", flush=True)
    for name, found in pairs.items():
        report(found, name)
    if not options.no_reduced:
        reduced(families, options.splits[:1])


if __name__ == "__main__":
    main()
