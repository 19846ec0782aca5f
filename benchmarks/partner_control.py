"""Does the kinship partner help? The demo's searches on families of other seeds, the control run several times.

Of each family: greedy merging alone, with the least related partner, and with a random one by several seeds; partners
come from everybody, so that there is a choice in every generation that adds one. Printed as it falls.

    python benchmarks/partner_control.py --work WORK [--seeds 21 22 23] [--share 0.5] [--documents 250] [--quick]

Families, runs and scores are kept under --work: what was stopped goes on, and several processes may share the work by
--seeds. --summary reads what is there; --out keeps it as JSON. --share trains every model for that share of its steps.
"""

import argparse
import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["KINSHIP_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import torch
from scipy import stats

from evaluators.cache import ScoreCache
from kinship.output import output_file
from search.history.export import export_run
from search.history.rank_correlation import rank_correlation
from search.running.coordinator import Search
from service.demo.family import DEMO, TINY, FamilySettings, make_family
from service.demo.searches import DemoSearch, searches

SEEDS = (21, 22, 23, 24, 25)  # nothing was tuned on them


def measure(seed: int, settings: FamilySettings, controls: int, work: Path) -> None:
    """Train one family and run its searches; what is there is not done again."""
    place = work / f"family-{seed}"
    if place.with_suffix(".json").exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    started = _cpu()
    family = make_family(place / "family", replace(settings, seed=seed))
    trained = _cpu() - started
    cache = ScoreCache(place / "scores.sqlite")
    rows = []
    for search in searches(controls):
        with Search(search.config(family, place), place / search.folder, root=place, cache=cache) as run:
            run.run()
            rows.append(row_of(search, export_run(run.ledger)))
    facts = {"seed": seed, "train_cpu_seconds": trained, "cpu_seconds": _cpu() - started, "runs": rows}
    with output_file(work / f"family-{seed}.json", force=True) as partial:
        partial.write_text(json.dumps(facts, indent=1))
    print(f"family {seed}: {facts['cpu_seconds']:.0f} CPU seconds, {trained:.0f} of training", flush=True)


def _cpu() -> float:
    """CPU seconds so far, those of processes that have ended included."""
    return sum(os.times()[:4])


def row_of(search: DemoSearch, export: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run."""
    people = {person["id"]: person for person in export["individuals"]}
    pairs = [person for person in people.values() if person["generation"] == 1]
    best = people[export["best_offspring"]]
    return {
        "label": search.label,
        "variant": search.variant,
        "offspring": sum(person["generation"] > 0 for person in people.values()),
        "partners": [row["partners"] for row in export["exploration"]],
        "best": best["id"],
        "identity": best["identity"],
        "founder": people[export["best_founder"]]["scores"]["held_out"]["value"],
        "search": best["scores"]["search"]["value"],
        "held_out": best["scores"]["held_out"]["value"],
        "gain": export["gain_over_best_founder"],
        "pairs": [[*person["parents"], person["kinship_of_parents"], person["merge_gain"]] for person in pairs],
    }


def summarise(families: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row for each family, and the differences over families; points, held out."""
    by_seed = {family["seed"]: _of_family(family["runs"]) for family in families}
    pairs = {
        "kinship - random": [row["kinship"] - row["random"] for row in by_seed.values()],
        "kinship - vanilla": [row["kinship"] - row["vanilla"] for row in by_seed.values()],
        "random - vanilla": [row["random"] - row["vanilla"] for row in by_seed.values()],
        "kinship - random, search": [row["kinship_search"] - row["random_search"] for row in by_seed.values()],
        "kinship and gain, rank correlation": [row["correlation"] for row in by_seed.values()],
    }
    return {"families": by_seed, "over families": {name: _interval(values) for name, values in pairs.items()}}


def _of_family(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    one = {run["variant"]: run for run in runs}
    controls = [run for run in runs if run["variant"] == "random"]
    known = [pair for pair in one["vanilla"]["pairs"] if None not in pair]
    first, second, kinship, gain = zip(*known, strict=True)
    correlation = rank_correlation(kinship, gain, list(zip(first, second, strict=True)))
    assert correlation is not None
    return {
        "founder": 100 * one["vanilla"]["founder"],
        "vanilla": 100 * one["vanilla"]["held_out"],
        "kinship": 100 * one["kinship"]["held_out"],
        "random": 100 * statistics.fmean(run["held_out"] for run in controls),
        "controls": [100 * run["held_out"] for run in controls],
        "stderr": 100 * (one["vanilla"]["gain"]["held_out"]["stderr"] or math.nan),
        "kinship_search": 100 * one["kinship"]["search"],
        "random_search": 100 * statistics.fmean(run["search"] for run in controls),
        "other_winner": sum(run["identity"] != one["vanilla"]["identity"] for run in [one["kinship"], *controls]),
        "offspring": [run["offspring"] for run in runs],
        "partners": one["kinship"]["partners"],
        "correlation": correlation.value,
        "correlation_interval": [correlation.low, correlation.high],
    }


def _interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over families, 95 % t interval, and p."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else math.nan
    p = float(stats.ttest_1samp(values, 0).pvalue) if len(values) > 1 else math.nan
    return {"mean": statistics.fmean(values), "half": half, "p": p}


def show(summary: dict[str, Any]) -> None:
    """The tables, in Markdown."""
    print(
        "| seed | best founder | vanilla | kinship | random | partners to choose from | offspring | kinship and gain |"
    )
    for seed, row in summary["families"].items():
        controls = ", ".join(f"{value:.2f}" for value in row["controls"])
        print(f"| {seed} | {row['founder']:.2f} | {row['vanilla']:.2f} ± {row['stderr']:.2f} | {row['kinship']:.2f} | "
              f"{controls} | {row['partners']} | {row['offspring']} | {row['correlation']:+.2f} "
              f"{row['correlation_interval']} |")  # fmt: skip
    for name, found in summary["over families"].items():
        print(f"{name}: {found['mean']:+.2f} ± {found['half']:.2f}, p = {found['p']:.3f}")


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where families, scores and runs are kept")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--controls", type=int, default=3, help="seeds of the random partner")
    parser.add_argument("--share", type=float, default=1.0, help="of each model's training steps")
    parser.add_argument("--documents", type=int, default=DEMO.documents, help="of a skill, half of them held out")
    parser.add_argument("--quick", action="store_true", help="one tiny family")
    parser.add_argument("--summary", action="store_true", help="only summarise what is there")
    parser.add_argument("--out", type=Path, help="the summary, as JSON")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    members = [replace(one, steps=round(options.share * one.steps)) for one in DEMO.specialists]
    family = replace(
        DEMO, specialists=tuple(members), steps=round(options.share * DEMO.steps), documents=options.documents
    )
    if not options.summary:
        for seed in options.seeds[:1] if options.quick else options.seeds:
            measure(seed, TINY if options.quick else family, options.controls, options.work)
    files = sorted(options.work.glob("family-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
    summary = summarise([json.loads(file.read_text()) for file in files])
    show(summary)
    if options.out:
        machine = {"machine": platform.machine(), "torch": torch.__version__, "python": platform.python_version()}
        machine |= {"share of training": options.share, "documents of a skill": options.documents}
        with output_file(options.out, force=True) as partial:
            partial.write_text(json.dumps(machine | summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
