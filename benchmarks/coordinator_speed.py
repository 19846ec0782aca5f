"""What the coordinator itself costs: searches whose scores cost nothing, up to ledgers of many individuals.

    python benchmarks/coordinator_speed.py --work WORK [--offspring 10000] [--tensors 150] [--ledger URL]

Reports milliseconds per offspring (strategy, merging, payloads, ledger, cache; all but making and scoring weights), and
the seconds to resume a finished run that is extended by a generation, to export, to show, and to write the report.
"""

import argparse
import hashlib
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from safetensors.torch import save_file

from evaluators.base import Candidate, Task
from search.config import RunConfig, parse_config
from search.history.export import export_run, to_json
from search.ledger.ledger import Ledger
from search.running.coordinator import Search
from service.commands.runs import show
from service.pages.contents import RunContents
from service.pages.report import write_report

DOCUMENTS = 500


class FreeEvaluator:
    """Scores that follow from the identity of the weights, which are never made, and rise with the generation."""

    tasks = (Task("free", "acc", "free/1", {"search": range(DOCUMENTS), "held_out": range(DOCUMENTS, 2 * DOCUMENTS)}),)
    conditions: Mapping[str, str] = {"device": "none"}

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        digest = hashlib.shake_128(candidate.identity.encode()).digest(2 * DOCUMENTS)
        generation = candidate.id.partition("-")[0]
        level = int(generation) / 100 if generation.isdigit() else 0.0
        return {"free": {document: level + digest[document] / 100_000 for document in documents["free"]}}


def models(work: Path, count: int, tensors: int) -> dict[str, str]:
    """Founders of random weights, small, with as many tensors as a real model."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for number in range(count + 1):
        folder = work / ("base" if number == 0 else f"founder-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"model.layers.{index // 9}.part{index % 9}.weight" for index in range(tensors)]
        save_file({name: torch.randn(16, 16, generator=generator) for name in names}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        found[folder.name] = str(folder)
    return found


def stopwatch(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def timed(label: str, action: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    before = time.process_time()
    took = stopwatch(action)
    spent = time.process_time() - before
    print(f"{label:<58} {took:8.2f} s, of which CPU {spent:8.2f} s", flush=True)
    return took, spent


def search(config: RunConfig, folder: Path, ledger: str | None) -> int:
    with Search(config, folder, ledger=ledger, evaluator=FreeEvaluator()) as run:
        run.run()
        return sum(record.generation > 0 for record in run.records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--offspring", type=int, default=10_000)
    parser.add_argument("--tensors", type=int, default=150)
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--ledger", help="keep the run in this Postgres database")
    parser.add_argument("--keep", action="store_true", help="measure on the ledger that is there already")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    references = models(arguments.work / "models", 6, arguments.tensors)
    base = references.pop("base")

    def config(evaluations: int) -> RunConfig:
        return parse_config(
            {
                "base": base,
                "founders": references,
                "evaluate": {"tasks": ["free"]},
                "strategy": {"name": arguments.strategy},
                "stop": {"evaluations": evaluations},
            }
        )

    folder = arguments.work / "run"
    if not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)

    def searched(evaluations: int) -> int:
        return search(config(evaluations), folder, arguments.ledger)

    took, spent = timed(f"a search of {arguments.offspring:,} offspring", lambda: searched(arguments.offspring))
    with Ledger.of_run(folder) as ledger:
        born = len(ledger.records()) - 7
        each, cpu = 1000 * took / born, 1000 * spent / born
        if not arguments.keep:
            print(f"{born:,} offspring, {each:.1f} ms each, of which CPU {cpu:.1f} ms; stopped: {ledger.stopped()}")
        timed("read all individuals", ledger.records)
        timed("export", lambda: to_json(export_run(ledger)))
    timed("resume, finished", lambda: searched(arguments.offspring))
    timed("resume, extended by 4 evaluations", lambda: searched(arguments.offspring + 4))

    def shown() -> None:
        with redirect_stdout(io.StringIO()):
            show(str(folder))

    timed("kinship runs show", shown)
    timed(
        "report",
        lambda: write_report(arguments.work / "report.html", {"run": RunContents.open(folder)}, "", force=True),
    )


if __name__ == "__main__":
    main()
