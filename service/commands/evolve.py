"""`kinship evolve`."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from evaluators.cache import ScoreCache, default_path
from kinship.errors import InvalidConfig, OutputExists
from kinship.output import require_writable
from search.config import RunConfig, load_config
from search.coordinator import Observer
from search.ledger import LEDGER_NAME
from search.mating import BASE
from service.console import console, notes, print_json, progress_bar


def run(
    run_file: Path, out: Path, *, resume: bool, dry_run: bool, cache: Path | None, as_json: bool, force: bool
) -> None:
    """Search, or resume, or print the plan."""
    config = load_config(run_file)
    root = run_file.absolute().parent
    if dry_run:
        print_plan(config, root, as_json=as_json)
        return
    prepare_folder(out, resume=resume, force=force)
    from service.evolution import run_evolution

    with observed(as_json=as_json) as observer:
        try:
            view = run_evolution(config, out, root=root, cache=ScoreCache(cache or default_path()), observer=observer)
        except KeyboardInterrupt:
            notes().print(f"\nStopped. Every score so far is kept; go on with --resume --out {out}")
            raise
    if not as_json:
        console().print(view.verdict())
        console().print(f"Report: {out / 'report.html'}", soft_wrap=True)


def prepare_folder(out: Path, *, resume: bool, force: bool) -> None:
    """Make sure that ``out`` may be used: new, or a run to resume, or to be replaced."""
    occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if occupied and not resume:
        if not force:
            raise OutputExists(
                f"{out} exists already.", hint="Go on with it by --resume, replace it by --force, or choose another."
            )
        if not (out / LEDGER_NAME).exists():
            raise OutputExists(f"{out} is not the folder of a run; it is not replaced.", hint="Choose another --out.")
        shutil.rmtree(out)
    if occupied and resume and not (out / LEDGER_NAME).exists() and not (out / ".lock").exists():
        raise OutputExists(f"{out} is not the folder of a run.", hint="Choose the folder that was given as --out.")
    require_writable(out, force=True)


@contextmanager
def observed(*, as_json: bool) -> Iterator[Observer]:
    """Yield an observer that shows events: JSON lines, or a bar a generation with lines for what was found."""
    if as_json:
        yield lambda name, facts: print_json({"schema": "kinship.event/1", "event": name, **facts}, indent=None)
        return
    with progress_bar() as bar:
        task = bar.add_task("Reading weights", total=None, amount="")
        best: list[tuple[float, str]] = []

        def show(name: str, facts: Mapping[str, Any]) -> None:
            match name:
                case "phase" if facts["phase"] == "scoring" and facts["split"] == "held_out":
                    bar.update(task, description="Held-out documents", total=None, amount=facts["individual"])
                case "phase":
                    bar.update(task, amount=facts.get("individual", ""))
                case "generation":
                    bar.reset(task, total=facts["offspring"], description=f"Generation {facts['generation']}")
                case "scored" if facts["split"] == "search":
                    if facts["individual"] != BASE:
                        best.append((facts["value"], facts["individual"]))
                    bar.advance(task)
                    value, error = 100 * facts["value"], 100 * (facts["stderr"] or 0.0)
                    crown = "  [bold]best so far[/]" if best and max(best)[1] == facts["individual"] else ""
                    bar.console.print(f"  {facts['individual']:<20} {value:6.2f} ± {error:.2f}{crown}")
                case "failed":
                    bar.advance(task)
                    bar.console.print(f"  {facts['individual']:<20} [red]failed[/]: {facts['error']}")
                case "stopped":
                    bar.console.print(f"  Stopped because {facts['reason']}.")

        yield show


def print_plan(config: RunConfig, root: Path, *, as_json: bool) -> None:
    """What a run would do, from headers and tasks alone."""
    from evaluators.harness import load_tasks
    from kinship.alignment import require_same_tensors
    from kinship.opening import open_checkpoint

    models = [open_checkpoint(path, id=id, root=root) for id, path in {"base": config.base, **config.founders}.items()]
    require_same_tensors(models[0], models[1:])
    tasks = load_tasks(config.evaluate, root)
    documents = sum(len(task.eval_docs) for task in tasks.values())
    first = len(list(combinations(config.founders, 2)))
    later = config.strategy.k * (config.strategy.k - 1) // 2 + (config.strategy.variant != "vanilla")
    most = first + later * (config.stop.generations - 1)
    if config.stop.evaluations is not None:
        most = min(most, config.stop.evaluations)
    if not documents:
        raise InvalidConfig("The tasks hold no documents.")
    plan = {
        "schema": "kinship.plan/1",
        "founders": list(config.founders),
        "parameters": sum(entry.count for entry in models[0].tensors.values()),
        "bytes_to_read": sum(entry.nbytes for model in models for entry in model.tensors.values()),
        "tasks": list(tasks),
        "documents": documents,
        "offspring_first_generation": min(first, most),
        "offspring_at_most": most,
        "evaluations_at_most": most + len(models),
    }
    if as_json:
        print_json(plan)
        return
    for key, value in plan.items():
        if key != "schema":
            text = ", ".join(value) if isinstance(value, list) else f"{value:,}"
            console().print(f"{key.replace('_', ' '):<28} {text}", soft_wrap=True)
