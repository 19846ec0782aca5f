"""What an evaluation costs beyond its forward passes, and beside the usual way: merge to disk, `lm_eval` per candidate.

    python benchmarks/evaluation_overhead.py [--quick] [--work FOLDER] [--data FOLDER] [--offspring 5]
    python benchmarks/evaluation_overhead.py --only local --model MODEL --tasks arc_easy --limit 60 --share-prefixes

Cases: the demo family on its own tasks, and (where --data holds eval-data) three noisy copies of a model, stories260K
if --data holds it, on tasks of those documents, BLiMP by default. Ours: one process, offspring by random recipes;
each is made from the founders' files in the live model, scored on the search split, and its results are put into a
fresh score cache. Forward passes are timed by a wrapper around the model's `forward`; all else counts as overhead,
the check for NaN included. On a busy machine read the CPU times: these models run on one thread. Theirs: `kinship
merge` and then `python -m lm_eval`, a process each, on the same recipe and documents. Accuracies of both are
compared.
"""

import argparse
import functools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from common import Cost, run
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from evaluators.base import Candidate
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from evaluators.make import make_evaluator
from evaluators.scores.score import Score
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.opening import open_checkpoint
from kinship.measures.alignment import Alignment
from kinship.measures.gram import gram_table
from merging.offspring.span import Span
from merging.offspring.weights import materialise
from merging.recipe.schema import parse_recipe
from service.demo.family import DEMO, TINY, make_family

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    name: str
    base: Path
    founders: list[Path]
    tasks: Path
    task_names: list[str]
    limit: int | None
    share_prefixes: bool = False


@dataclass
class Times:
    """Seconds of wall and of this process's CPU time, whole and in forward passes, and the number of passes."""

    wall: float = 0.0
    cpu: float = 0.0
    forward_wall: float = 0.0
    forward_cpu: float = 0.0
    passes: int = 0

    @property
    def pairs(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(whole, in forward passes), of wall and of CPU time."""
        return (self.wall, self.forward_wall), (self.cpu, self.forward_cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny family and few documents")
    parser.add_argument("--work", type=Path, help="where the family is kept; default: a temporary folder")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--offspring", type=int, default=5, help="at least 2")
    parser.add_argument("--only", choices=["demo", "local"], help="one of the cases")
    parser.add_argument("--model", type=Path, help="of the second case; default: stories260K")
    parser.add_argument("--tasks", default="blimp", help="of the second case: those whose names hold this")
    parser.add_argument("--limit", type=int, help="documents of each of those tasks")
    parser.add_argument("--share-prefixes", action="store_true", help="ours runs a question once for all its answers")
    parser.add_argument("--ours", action="store_true", help="leave the usual way out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        for case in cases(work, options):
            compare(case, work / "scratch", options.offspring, beside=not options.ours)


def cases(work: Path, options: argparse.Namespace) -> Iterator[Case]:
    data, quick = options.data, options.quick
    if options.only != "local":
        family = make_family(work / ("tiny" if quick else "demo"), TINY if quick else DEMO)
        tasks = absolute_tasks(family.tasks, work / f"{family.folder.name}-tasks")
        yield Case("demo family", family.base, list(family.founders), tasks, list(family.task_names), None)
    if options.only == "demo":
        return
    model = options.model or data / "models/stories260K"
    if not model.is_dir():
        print(f"{model} is not there: it and {options.tasks} are left out")
        return
    folder = work / "local"
    script = [sys.executable, ROOT / "examples/local_tasks.py", data / "eval-data", folder]
    written = subprocess.run(script, capture_output=True, text=True, check=True).stdout.strip().split(",")
    names = [name for name in written if options.tasks in name]
    copies = [noisy_copy(model, work / f"{model.name}-{seed}", seed) for seed in range(1, 4)]
    limit = options.limit or (20 if quick else None)
    yield Case(f"{model.name}, {options.tasks}", model, copies, folder, names, limit, options.share_prefixes)


def absolute_tasks(source: Path, folder: Path) -> Path:
    """The tasks with absolute paths to their documents, which lm-eval counts from the working directory."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.yaml"):
        task = yaml.safe_load(file.read_text())
        files = task["dataset_kwargs"]["data_files"]
        task["dataset_kwargs"]["data_files"] = {split: str(source / name) for split, name in files.items()}
        (folder / file.name).write_text(yaml.safe_dump(task, sort_keys=False))
    return folder


def noisy_copy(model: Path, folder: Path, seed: int) -> Path:
    if not folder.exists():
        torch.manual_seed(seed)
        copy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter += 0.05 * parameter.std() * torch.randn_like(parameter)
        copy.save_pretrained(folder)
        AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def compare(case: Case, scratch: Path, count: int, beside: bool) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    rng = np.random.default_rng(0)
    recipes = []
    for _ in range(count):
        weights = rng.dirichlet(np.ones(len(case.founders)))
        models = [
            {"model": str(founder), "parameters": {"weight": float(weight)}}
            for founder, weight in zip(case.founders, weights, strict=True)
        ]
        recipes.append({"merge_method": "linear", "models": models, "dtype": "float32"})

    started = time.perf_counter()
    ours = Ours(case, scratch / "scores.sqlite")
    setup = time.perf_counter() - started
    print(f"\n{case.name}: {ours.parameters:,} parameters, {ours.documents} documents")
    print(f"  set up (once a run): {setup:.1f} s")
    columns = "".join(f"{label:>10}" for label in ("wall", "forward", "beyond", "CPU", "forward", "beyond"))
    print(f"  offspring  passes{columns}")
    found = [ours.evaluate(recipe, number) for number, recipe in enumerate(recipes, 1)]
    for number, (_, times) in enumerate(found, 1):
        figures = "".join(f"{whole:9.2f}s{part:9.2f}s{whole - part:9.3f}s" for whole, part in times.pairs)
        print(f"  {number:9} {times.passes:7}{figures}")
    for label, index in (("wall", 0), ("CPU", 1)):
        pairs = [times.pairs[index] for _, times in found[1:]]  # the first builds the prompts, once a run
        whole = statistics.median(whole for whole, _ in pairs)
        beyond = statistics.median(whole - part for whole, part in pairs)
        share = statistics.median((whole - part) / whole for whole, part in pairs)
        print(f"  median {label} from the second on: {whole:.2f} s, beyond forward passes {beyond:.3f} s ({share:.1%})")

    if not beside:
        return
    score, merged, evaluated = usual_way(case, recipes[-1], ours.chosen, scratch)
    for label, cost in (("merge", merged), ("lm_eval", evaluated)):
        print(f"  usual way, {label:8} {cost.wall:7.2f} s wall, {cost.cpu:7.2f} s CPU, {cost.peak:6.0f} MB")
    total = merged.wall + evaluated.wall
    wall = statistics.median(times.wall for _, times in found[1:])
    print(f"  usual way, both     {total:7.2f} s wall: {total / wall:.1f} times ours")
    cpu = statistics.median(times.cpu for _, times in found[1:])
    print(f"  documents a CPU second: {ours.documents / cpu:.2f}, the usual way {ours.documents / evaluated.cpu:.2f}")
    mine = {task.task: task.estimate.value for task in found[-1][0].tasks}
    print(f"  largest difference of a task's accuracy: {max(abs(mine[name] - score[name]) for name in mine):.2g}")


class Ours:
    """The live model, the tasks and the founders' Gram table: what a run sets up once."""

    def __init__(self, case: Case, cache: Path) -> None:
        self._models = [open_checkpoint(path) for path in (case.base, *case.founders)]
        self._span = Span.over(gram_table(self._models[0], self._models[1:], Alignment(tuple(self._models[0].tensors))))
        settings = EvaluateSettings.model_validate(
            {
                "tasks": case.task_names,
                "task_path": str(case.tasks),
                "limit": case.limit,
                "share_prefixes": case.share_prefixes,
            }
        )
        evaluator = make_evaluator(settings, self._models[0])
        self._scorer = CachedEvaluator(evaluator, ScoreCache(cache))
        self.chosen = {task.name: list(task.documents["search"]) for task in evaluator.tasks}
        self.documents = sum(map(len, self.chosen.values()))
        self.parameters = sum(entry.count for entry in self._models[0].tensors.values())

    def evaluate(self, recipe: dict[str, Any], number: int) -> tuple[Score, Times]:
        with forward_timed() as times:
            started, worked = time.perf_counter(), time.process_time()
            parents = {str(model.id): self._span.founder(model.id) for model in self._models[1:]}
            genome = self._span.merge(parse_recipe(recipe), parents)
            candidate = Candidate(
                f"1-{number}", f"identity {number}", lambda: materialise(genome, self._span.names, self._models)
            )
            score = self._scorer.score(candidate, "search")
            times.wall, times.cpu = time.perf_counter() - started, time.process_time() - worked
        return score, times


@contextmanager
def forward_timed() -> Iterator[Times]:
    """Sum up the time in `forward`, passes over a single token excepted: that is the check for NaN."""
    times, forward = Times(), LlamaForCausalLM.forward

    @functools.wraps(forward)
    def timed(self: LlamaForCausalLM, *arguments: Any, **options: Any) -> Any:
        started, worked = time.perf_counter(), time.process_time()
        result = forward(self, *arguments, **options)
        ids = arguments[0] if arguments else options["input_ids"]
        if ids.numel() > 1:
            times.forward_wall += time.perf_counter() - started
            times.forward_cpu += time.process_time() - worked
            times.passes += 1
        return result

    with patch.object(LlamaForCausalLM, "forward", timed):
        yield times


def usual_way(
    case: Case, recipe: dict[str, Any], chosen: dict[str, list[int]], scratch: Path
) -> tuple[dict[str, float], Cost, Cost]:
    """Accuracies by task, and the costs of merging and of evaluating."""
    (scratch / "recipe.yml").write_text(yaml.safe_dump(recipe))
    (scratch / "samples.json").write_text(json.dumps(chosen))
    program = str(Path(sys.executable).parent / "kinship")
    _, merged = run([program, "merge", str(scratch / "recipe.yml"), str(scratch / "merged")])
    options = {
        "model": "hf",
        "model_args": f"pretrained={scratch / 'merged'},dtype=float32",
        "tasks": ",".join(case.task_names),
        "include_path": case.tasks,
        "batch_size": 64,
        "device": "cpu",
        "samples": scratch / "samples.json",
        "output_path": scratch / "out",
    }
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    command = [sys.executable, "-m", "lm_eval", *words]
    _, evaluated = run(command, {"HF_HUB_OFFLINE": "1"})
    (results,) = (scratch / "out").rglob("results_*.json")
    content = json.loads(results.read_text())["results"]
    return {name: content[name]["acc,none"] for name in case.task_names}, merged, evaluated


if __name__ == "__main__":
    main()
