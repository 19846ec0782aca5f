"""`kinship runs compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from evaluators.scores.intervals import paired_difference
from evaluators.scores.score import Score
from evaluators.scores.splits import SPLITS, Split
from kinship.errors import IncomparableScores, InvalidConfig, LedgerError
from search.history.comparisons import Differences
from search.ledger.records import best_offspring, ranked
from search.strategies.settings import StrategySettings
from service.answers.runs import open_run
from service.console import console, print_json


@dataclass(frozen=True)
class _Run:
    facts: dict[str, Any]
    scores: dict[Split, Score]


def compare_runs(runs: list[str], *, as_json: bool) -> None:
    """Print what the runs found, side by side; the differences are to the first of them."""
    if len(runs) < 2:
        raise InvalidConfig("There is one run to compare.", hint="Name two or more.")
    read = [_read(run) for run in runs]
    for each in read:
        each.facts["versus_first"] = {} if each is read[0] else _differences(each, read[0])
    rows = [each.facts for each in read]
    if as_json:
        print_json({"schema": "kinship.runs-compare/1", "runs": rows})
        return
    table = Table("")
    for row in rows:
        table.add_column(row["run"].rpartition("#")[2] if "#" in row["run"] else Path(row["run"]).absolute().name)
    best = [row["best_offspring"] or {"id": "", "scores": {}, "gain_over_best_founder": {}} for row in rows]
    for key in ("strategy", "seed", "evaluations", "documents", "failed"):
        table.add_row(key, *(f"{row[key]:,}" if isinstance(row[key], int) else row[key] for row in rows))
    table.add_row("hours", *(f"{row['hours']:.2f}" for row in rows))
    table.add_row("best offspring", *(each["id"] for each in best))
    for split, label in (("search", "search score"), ("held_out", "held-out score")):
        table.add_row(label, *(_figure(each["scores"].get(split)) for each in best))
    gains = (each["gain_over_best_founder"].get("held_out") for each in best)
    table.add_row("gain, held out", *(_figure(gain, sign=True) for gain in gains))
    table.add_row("versus first", *(_versus(row["versus_first"].get("held_out")) for row in rows))
    console().print(table)
    console().print("gain: over the run's best founder. versus first: of the best offspring, on held-out documents. "
                    "Both are paired by document.")  # fmt: skip


def _read(name: str) -> _Run:
    with open_run(name) as ledger:
        facts = ledger.facts()
        if facts is None:
            raise LedgerError(f"{ledger.place} holds no run yet.", hint="Start it with `kinship evolve`.")
        records = ledger.records()
        best = best_offspring(records)
        founder = next((record for record in ranked(records) if record.generation == 0), None)
        between = Differences(ledger, facts, {record.id: record for record in records})
        scores = {split: score for split in SPLITS if best and (score := between.score(best.id, split))}
        winner = best and {
            "id": best.id,
            "scores": {split: {"value": each.value, "stderr": each.stderr} for split, each in best.scores.items()},
            "gain_over_best_founder": between.intervals([(best.id, founder.id)])[0] if founder else {},
        }
        counted = [record for record in records if record.twin is None and "search" in record.scores]
        return _Run(
            {
                "run": name,
                "strategy": StrategySettings.model_validate(facts.config["strategy"]).name,
                "seed": facts.config["seed"],
                "evaluations": sum(record.generation > 0 for record in records),
                "documents": sum(int(record.scores["search"].facts["documents"]) for record in counted),
                "failed": sum(record.error is not None for record in records),
                "hours": ledger.seconds() / 3600,
                "stopped": ledger.stopped(),
                "best_offspring": winner,
            },
            scores,
        )


def _differences(run: _Run, first: _Run) -> dict[str, Any]:
    """By split: the winner's score less that of the first run's winner, or why that cannot be told."""
    found: dict[str, Any] = {}
    for split in SPLITS:
        if split not in run.scores or split not in first.scores:
            continue
        if not all(task.digest for task in run.scores[split].tasks):
            found[split] = {"incomparable": "The tasks' digests are not on record: they may be other tasks."}
            continue
        try:
            found[split] = paired_difference(run.scores[split], first.scores[split]).to_dict()
        except IncomparableScores as error:
            found[split] = {"incomparable": error.message}
    return found


def _figure(entry: dict[str, Any] | None, *, sign: bool = False) -> str:
    if entry is None:
        return ""
    error = "" if entry["stderr"] is None else f" ± {entry['stderr']:.4f}"
    return f"{entry['value']:{'+' if sign else ''}.4f}{error}"


def _versus(entry: dict[str, Any] | None) -> str:
    if entry is not None and "incomparable" in entry:
        return "other documents"
    return _figure(entry, sign=True)
