"""Several runs side by side: what each found, at what cost, and their winners against the first one's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kinship.errors import IncomparableScores, InvalidConfig, LedgerError
from service.answers.base import Answer, Part, named
from service.answers.runs import open_run
from service.answers.scores import Difference, Estimate, Split

if TYPE_CHECKING:
    from evaluators.scores.score import Score
    from search.ledger.records import Record


class Winner(Part):
    """The best offspring of a run."""

    id: str
    """Its name in the run."""
    scores: dict[Split, Estimate]
    """By split."""
    gain_over_best_founder: dict[Split, Difference]
    """By split."""


class Incomparable(Part):
    """In place of a difference."""

    incomparable: str
    """Why there is none."""


class ComparedRun(Part):
    """What a run found, at what cost."""

    run: str
    """Folder as given, or URL, without its password, and name."""
    strategy: str
    """Its name."""
    variant: str | None
    """Of Top-k greedy merging: which partner is added; null for other strategies."""
    seed: int
    """Of everything random in the search."""
    evaluations: int
    """Offspring, failed ones included."""
    documents: int
    """Scored for the search, base and founders included."""
    failed: int
    """Individuals without a score."""
    hours: float
    """Of work."""
    stopped: str | None
    """Why; null: it is not finished."""
    identical_to: str | None
    """An earlier run of the list that made the same models, generation by generation; null for none."""
    best_offspring: Winner | None
    """On the search split."""
    versus_first: dict[Split, Difference | Incomparable]
    """Its best offspring less that of the first run, in the plain mean of the tasks; empty for the first."""


class ComparedRuns(Answer):
    """Several runs side by side."""

    schema_: Literal["kinship.runs-compare/2"] = named("kinship.runs-compare/2")
    runs: list[ComparedRun]
    """In the order named."""


@dataclass(frozen=True)
class ReadRun:
    """What is needed of a run to compare it."""

    facts: dict[str, Any]
    scores: "dict[Split, Score]"
    records: "list[Record]"


def compare_runs(runs: Sequence[str]) -> ComparedRuns:
    """What ``runs`` found; the differences are to the first of them.

    Raises `InvalidConfig` for fewer than two, and `LedgerError` where there is no run.
    """
    _require_two(runs)
    return compare_read([read_run(run) for run in runs])


def compare_read(read: Sequence[ReadRun]) -> ComparedRuns:
    """The same of runs that were read already."""
    _require_two(read)
    from search.history.comparisons import first_alike

    return ComparedRuns(
        runs=[
            ComparedRun(
                **each.facts,
                identical_to=None if same is None else read[same].facts["run"],
                versus_first=_differences(each, read[0]) if place else {},
            )
            for place, (each, same) in enumerate(zip(read, first_alike([each.records for each in read]), strict=True))
        ]
    )


def _require_two(runs: Sequence[object]) -> None:
    if len(runs) < 2:
        raise InvalidConfig("There is one run to compare.", hint="Name two or more.")


def read_run(name: str) -> ReadRun:
    """One of them, by its folder, or URL#NAME. Raises `LedgerError`."""
    from evaluators.scores.splits import SPLITS
    from search.history.comparisons import Differences
    from search.ledger.records import best_offspring, ranked
    from search.strategies.make import resolved_name

    with open_run(name) as ledger:
        facts = ledger.facts()
        if facts is None:
            raise LedgerError(f"{ledger.location} holds no run yet.", hint="Start it with `kinship evolve`.")
        strategy = facts.config.strategy
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
        return ReadRun(
            {
                "run": str(ledger.location) if "://" in name else name,  # whose password is nobody's to read
                "strategy": strategy.name,
                "variant": strategy.variant if resolved_name(strategy, facts.config.merge) == "topk" else None,
                "seed": facts.config.seed,
                "evaluations": sum(record.generation > 0 for record in records),
                "documents": sum(int(record.scores["search"].facts["documents"]) for record in counted),
                "failed": sum(record.error is not None for record in records),
                "hours": ledger.seconds() / 3600,
                "stopped": ledger.stopped(),
                "best_offspring": winner,
            },
            scores,
            records,
        )


def _differences(run: ReadRun, first: ReadRun) -> dict[str, Any]:
    """By split: the winner's score less that of the first run's winner, or why that cannot be told."""

    from evaluators.scores.intervals import paired_difference

    found: dict[str, Any] = {}
    for split, score in run.scores.items():
        if split not in first.scores:
            continue
        if not all(task.digest for task in score.tasks):
            found[split] = {"incomparable": "The tasks' digests are not on record: they may be other tasks."}
            continue
        try:
            found[split] = paired_difference(score, first.scores[split]).to_dict()
        except IncomparableScores as error:
            found[split] = {"incomparable": error.message}
    return found
