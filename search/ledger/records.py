"""What is known of a run's individuals: who is best, who is scored on held-out documents, who may still be needed."""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from evaluators.scores.aggregates import pareto_front
from evaluators.scores.splits import Split
from search.strategies.base import Individual, Proposal, Role, standing
from search.strategies.recipes import BASE
from search.strategies.settings import StrategySettings

Stage = Literal["merging", "search", "held_out"]
RESULTS = ("added", "scored", "failed")  # lines of the diary that tell of individuals: one each, beside their rows
CONTROL: Role = "control"
LATEST = 2  # generations of which strategies choose partners: see `partner_pool`


@dataclass(frozen=True)
class Summary:
    """A score without its documents: what the search and reports need of it.

    value, stderr: of the run's aggregate. complete: False where evaluation was stopped early, so that they are an
    estimate of the full score. facts: the plain data of the export, by task.
    """

    value: float
    stderr: float | None
    complete: bool
    facts: Mapping[str, Any]

    @property
    def tasks(self) -> dict[str, float]:
        """The value of each task."""
        return {name: task["value"] for name, task in self.facts["tasks"].items()}

    @property
    def errors(self) -> dict[str, float]:
        """The standard error of each task that has one."""
        return {name: task["stderr"] for name, task in self.facts["tasks"].items() if task["stderr"] is not None}


@dataclass(frozen=True)
class Entry:
    """One line of the diary of a run."""

    time: str
    seconds: float
    name: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """Why an individual has no score: ``stage`` is where it failed, ``attempts`` how often that was tried."""

    stage: Stage
    kind: str
    message: str
    traceback: str = ""
    attempts: int = 1


@dataclass(frozen=True)
class StoredChild:
    """A child outside the span. row: extends the Gram table, ``sums`` and ``products``. digest: of its weights."""

    id: str
    digest: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """All that is known of one individual, but for its genome and documents, which the ledger reads when asked for.

    batch: individuals proposed and scored together. identity: of its weights; None where it could not be merged.
    kinship: the mean over its parents. twin: an earlier individual of the same weights, whose score it shares.
    error: why it has no score.
    """

    id: str
    generation: int
    role: Role
    parents: tuple[str, ...]
    recipe: dict[str, Any]
    identity: str | None
    batch: int = 0
    kinship: float | None = None
    twin: str | None = None
    error: str | None = None
    scores: Mapping[Split, Summary] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the search has its answer: a score or a recorded failure."""
        return "search" in self.scores or self.error is not None

    @property
    def fitness(self) -> float | None:
        """The score that the search selects on; None until there is one, and for failures."""
        return self.scores["search"].value if "search" in self.scores else None

    @property
    def standing(self) -> tuple[float, float, str, str]:
        """Sorts individuals, best first: see `search.strategies.base.standing`."""
        stderr = self.scores["search"].stderr if "search" in self.scores else None
        return standing(self.fitness, stderr, self.identity, self.id)

    @property
    def ranks(self) -> bool:
        """Whether it may be called best: fully scored, and neither the base nor a double of somebody before it."""
        return self.id != BASE and self.twin is None and "search" in self.scores and self.scores["search"].complete

    @property
    def documents(self) -> int:
        """How many the search has paid for: none for a double."""
        score = self.scores.get("search")
        return 0 if score is None or self.twin else int(score.facts["documents"])

    def is_of(self, proposal: Proposal) -> bool:
        """Whether it was made of this proposal."""
        return (self.recipe, self.role, self.parents) == (proposal.recipe.to_dict(), proposal.role, proposal.parents)

    def individual(self) -> Individual:
        """What strategies are told of it."""
        score = self.scores.get("search")
        if score is None:
            return Individual(self.id, self.generation, None, self.parents, self.role, identity=self.identity or "")
        return Individual(
            self.id,
            self.generation,
            score.value,
            self.parents,
            self.role,
            score.stderr,
            score.complete,
            score.tasks,
            score.errors,
            self.identity or "",
        )


class Standings:
    """The best individuals so far, kept in order as they come: O(log n) comparisons each; see `standing`."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._order: list[tuple[float, float, str, str]] = []
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take in a record; those that do not rank are passed over."""
        if record.ranks:
            insort(self._order, record.standing)

    def top(self, count: int) -> list[str]:
        """Ids of the best, best first."""
        return [place[-1] for place in self._order[:count]]


def ranked(records: Iterable[Record]) -> list[Record]:
    """Those that rank, best first."""
    by_id = {record.id: record for record in records}
    standings = Standings(by_id.values())
    return [by_id[id] for id in standings.top(len(by_id))]


def best_of(records: Iterable[Record]) -> Record | None:
    """The one with the best score on the search split."""
    return min((record for record in records if record.ranks), key=lambda record: record.standing, default=None)


def best_offspring(records: Iterable[Record]) -> Record | None:
    """The offspring with the best score on the search split."""
    return best_of(record for record in records if record.generation > 0)


def best_so_far(records: Sequence[Record]) -> list[str]:
    """Ids of the best individual after each generation, on the search split, each once, in order."""
    standings, leaders = Standings(), list[str]()
    ordered = sorted(records, key=lambda record: record.generation)
    for _, generation in groupby(ordered, key=lambda record: record.generation):
        for record in generation:
            standings.add(record)
        leaders += [id for id in standings.top(1) if id not in leaders[-1:]]
    return leaders


def front(records: Iterable[Record]) -> list[str]:
    """Ids of those that no other beats on all tasks at once, of fully scored individuals on the search split."""
    return pareto_front({record.id: record.scores["search"].tasks for record in records if record.ranks})


def finalists(records: Sequence[Record], settings: StrategySettings) -> list[str]:
    """Ids of those scored on held-out documents beside base and founders: who led the run after a generation, the best
    offspring and the parents of all of these, each once; where every task is an objective, the Pareto front as well.
    """
    by_id = {record.id: record for record in records}
    best = best_offspring(records)
    leaders = [*best_so_far(records), *([best.id] if best else [])]
    if settings.objectives == "tasks":
        leaders += front(records)
    return list(dict.fromkeys([*leaders, *(parent for id in leaders for parent in by_id[id].parents)]))


def still_needed(records: Sequence[Record], settings: StrategySettings) -> Iterable[str]:
    """Ids of those that may yet be parents or be scored again, as far as is known after the latest generation.

    The top k, the latest generations and the `finalists`; everybody, where the strategy may choose anybody.
    """
    if settings.variant != "vanilla" and settings.partner_pool != "previous":
        return [record.id for record in records]
    latest = max(record.generation for record in records)
    recent = [record.id for record in records if record.generation > latest - LATEST]
    return dict.fromkeys([*Standings(records).top(settings.k), *recent, *finalists(records, settings)])
