"""A run as its ledger tells: the canonical export, and all that a ledger can be rebuilt from."""

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from service.answers.base import Answer, Part, named
from service.answers.gains import Correlation
from service.answers.runs import Failure, open_run
from service.answers.scores import Difference, Estimate, Split, SplitScore


class RunTask(Part):
    """What a run scored on."""

    metric: str
    """Of the task."""
    digest: str
    """Of task definition and documents."""


def legend(metric: str, tasks: Mapping[str, str]) -> str:
    """What the numbers of a run's individuals are; ``metric``: of kinship; ``tasks``: by name, the metric of each.

    >>> legend("pcc", {"piqa": "acc"})
    'Scores of piqa (acc); higher is better. Kinship is pcc of the parents, gain the score less the mean of theirs.'
    """
    scored = ", ".join(f"{name} ({measure})" for name, measure in tasks.items())
    return (
        f"Scores of {scored}; higher is better. Kinship is {metric} of the parents, gain the score less the mean of "
        "theirs."
    )


class Individual(Part):
    """A model of a run."""

    id: str
    """Its name in the run."""
    generation: int
    """0: base and founders."""
    role: str
    """``base``, ``founder``, or why it was proposed."""
    parents: list[str]
    """Ids."""
    kinship_of_parents: float | None
    """The mean over the pairs."""
    merge_gain: float | None
    """Its score less the mean of its parents', on the search split."""
    recipe: dict[str, JsonValue] | None
    """How it was merged; model names are ids of individuals."""
    identity: str | None
    """Of its weights; null where they could not be merged."""
    twin: str | None
    """An earlier individual of the same weights, whose scores it has."""
    error: str | None
    """Why it has no score."""
    scores: dict[Split, SplitScore]
    """By split."""

    @property
    def place(self) -> tuple[bool, tuple[float, float, str, str]]:
        """Sorts individuals: fully scored ones, those stopped early, those without a score; best first."""
        from search.strategies.base import standing

        score = self.scores.get("search")
        if score is None:
            return True, standing(None, None, self.identity, self.id)
        return not score.complete, standing(score.value, score.stderr, self.identity, self.id)


class RunComparison(Part):
    """Two individuals of a run."""

    individual: str
    """The one."""
    versus: str
    """The other."""
    relation: str
    """What the other is: ``best founder``, ``parent`` or ``base``."""
    splits: dict[Split, Difference]
    """By how much the one is better, on each split that both were scored on to the end."""


class Exploration(Part):
    """Whom the best model could have been given as a partner."""

    generation: int
    """In which it got one, or might have."""
    best: str
    """The best model before it."""
    pool: Literal["previous", "all", "outside"]
    """Where partners came from: ``all`` where the run file's pool left nobody."""
    partners: int
    """How many there were to choose from."""
    chosen: str | None
    """Who it was; null for none."""


class RunControl(Part):
    """What the best offspring is compared with, made and scored after the search: it is no individual."""

    id: str
    """Its name in the run."""
    of: str
    """Which offspring it is the control of."""
    control: Literal["random_vector"]
    """How it differs: a random task vector is in the place of a founder's."""
    founder: str
    """Whose."""
    identity: str | None
    """Of its weights; null where it could not be merged."""
    error: str | None
    """Why it has no score."""
    scores: dict[Split, SplitScore]
    """On held-out documents; where nothing is held out, on the search split."""
    splits: dict[Split, Difference]
    """By how much the offspring is better."""


class _Run(Answer):
    config: dict[str, JsonValue]
    """The run file as understood, without ``workers``, which change nothing."""
    digests: dict[str, str]
    """Of the weights of base and founders."""
    tasks: dict[str, RunTask]
    """By name."""
    conditions: dict[str, str]
    """Versions, device, dtype and what else scores were made with."""
    stopped: str | None
    """Why; null: it is not finished."""
    base: str
    """Id of the base."""
    best: str | None
    """Best individual on the search split."""
    best_founder: str | None
    """Best founder on the search split."""
    best_offspring: str | None
    """Best offspring on the search split."""
    best_so_far: list[str]
    """After each generation."""
    best_offspring_recipe: dict[str, JsonValue] | None
    """How to make it of base and founders: one linear merge, or for a child outside their span recipes in recipes."""
    gain_over_best_founder: dict[Split, Estimate]
    """Of the best offspring, in the run's aggregate; paired standard error."""
    comparisons: list[RunComparison]
    """Of the best offspring and the latest leaders."""
    controls: list[RunControl]
    """Of the best offspring, as the run file asks for."""
    verdict: str
    """In words: is the best offspring better than the best founder, on documents the search never saw, and than its
    controls?"""
    exploration: list[Exploration]
    """Of Top-k greedy merging with a partner, from generation 2 on; else empty."""
    pareto_front: list[str]
    """Ids, best on the search split of several tasks; empty for one."""


class RunExport(_Run):
    """Everything a run found, nothing of when, where or in how many attempts: equal runs have equal bytes."""

    schema_: Literal["kinship.run/5"] = named("kinship.run/5")
    individuals: list[Individual]
    """In the order proposed."""

    def canonical(self) -> str:
        """The text of ``export.json``, the same bytes for equal runs."""
        return _canonical(self)

    @property
    def metric(self) -> str:
        """How the run measured kinship."""
        strategy = self.config.get("strategy")
        return str(strategy["metric"]) if isinstance(strategy, dict) else ""

    @property
    def gain(self) -> Correlation:
        """How the gain of merges went with the kinship of their parents."""
        pairs = ((one.kinship_of_parents, one.merge_gain) for one in self.individuals)
        return Correlation.of((kinship, gain) for kinship, gain in pairs if kinship is not None and gain is not None)

    @property
    def exploration_told(self) -> str:
        """Whether there was a choice of partners, in words; empty where none are added."""
        from search.history.exploration import told

        strategy = self.config["strategy"]
        assert isinstance(strategy, dict)
        return told([vars(row) for row in self.exploration], str(strategy["partner_pool"]))

    @property
    def splits(self) -> list[Split]:
        """Those of the run; the search split alone where the search saw all documents."""
        evaluate = self.config.get("evaluate")
        whole = isinstance(evaluate, dict) and evaluate.get("search_fraction") == 1
        return ["search"] if whole else ["search", "held_out"]


class TaskResults(Part):
    """Results of one task."""

    documents: list[int]
    """Their numbers, rising."""
    values: list[float]
    """One each."""


class ArchivedIndividual(Individual):
    """A model of a run, with everything that is on record of it."""

    batch: int
    """Individuals proposed and scored together share it."""
    genome: str | None
    """Base64 of zlib of the coefficients, tensors x models, float64, little-endian; null where it was not merged."""
    results: dict[Split, dict[str, TaskResults]]
    """By split and task; none for a double."""
    failures: list[Failure]
    """In the order recorded."""


class ArchivedControl(RunControl):
    """A control, with everything that is on record of it."""

    results: dict[Split, dict[str, TaskResults]]
    """By split and task."""
    failures: list[Failure]
    """In the order recorded."""


class StoredRow(Part):
    """Sums over a child outside the span, tensor by tensor."""

    sums: list[float | None]
    """Of its elements."""
    products: list[list[float | None]]
    """With base, founders and earlier children; null: with weights that were gone."""


class StoredChild(Part):
    """A child outside the span, whose weights are kept on disk."""

    id: str
    """Its individual."""
    digest: str
    """Of its weights."""
    row: StoredRow
    """What the Gram table has of it."""


class DiaryEntry(Part):
    """A line of a run's diary."""

    time: str
    """When."""
    seconds: float
    """Of work by then."""
    name: str
    """What happened."""
    facts: dict[str, JsonValue]
    """What is to be said of it."""


class RunArchive(_Run):
    """All of a run, which its ledger can be rebuilt from. It tells when and where, so equal runs differ in it."""

    schema_: Literal["kinship.run-full/5"] = named("kinship.run-full/5")
    individuals: list[ArchivedIndividual]
    """In the order proposed."""
    controls: list[ArchivedControl]  # type: ignore[assignment]
    """Of the best offspring, as the run file asks for."""
    budget: int | None
    """Evaluations the strategy was told of."""
    gram: str
    """The founders' Gram table: base64 of an ``.npz`` with ``rows``, ``names``, ``counts``, ``sums``, ``grams``."""
    stored: list[StoredChild]
    """Children outside the span, in order."""
    diary: list[DiaryEntry]
    """In order."""

    def canonical(self) -> str:
        """The text that ``kinship runs export --full`` prints."""
        return _canonical(self)


def export_of(run: str) -> RunExport:
    """The canonical export of a run: its folder, or URL#NAME. Raises `LedgerError` where there is none."""
    from search.history.export import export_run

    with open_run(run) as ledger:
        return RunExport.model_validate(export_run(ledger))


def archive_of(run: str) -> RunArchive:
    """All of a run. Large: every result by document. Raises `LedgerError` where there is none."""
    from search.history.archive import archive

    with open_run(run) as ledger:
        return RunArchive.model_validate(archive(ledger))


def _canonical(run: _Run) -> str:
    from search.history.export import to_json

    return to_json(run.content())
