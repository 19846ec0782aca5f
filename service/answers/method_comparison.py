"""Merge methods compared: what they hold, what they gain on unseen tasks, what they cost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from service.answers.base import Answer, Part, named

if TYPE_CHECKING:
    from evaluators.cache import ScoreCache
    from search.comparison.plan import ComparisonPlan

Group = Literal["held_in", "unseen"]
FILE = "comparison.json"


class Ranged(Part):
    """A number with its interval of 95 %, over documents and seeds."""

    value: float
    """The number."""
    low: float | None
    """Where the interval begins; null where nothing tells."""
    high: float | None
    """Where it ends."""


class ComparedCell(Part):
    """A task that is compared on."""

    task: str
    """Its name."""
    metric: str
    """Of one document, higher is better."""
    held_in: bool
    """Whether a specialist was trained on it; else it is unseen."""
    skill: str | None
    """Its row in a grid."""
    domain: str | None
    """Its column there."""
    model: str | None
    """Its specialist."""
    documents: dict[Literal["search", "held_out"], int]
    """By split, under the first seed."""


class NamedRow(Part):
    """A baseline, a control, or a method with its parameters as they are or tuned."""

    label: str
    """What it is called."""
    kind: Literal["baseline", "control", "method"]
    """Which of them."""
    method: str | None
    """Entry of the plan; null for other rows."""
    tuned: bool
    """Whether its parameters were chosen on the search split of the held-in cells."""


class ComparedRow(NamedRow):
    """What a row of a comparison has."""

    scores: dict[Group, Ranged]
    """Mean over cells of the mean over held-out documents, over seeds; empty where it failed."""
    versus_reference: dict[Group, Ranged]
    """Less the reference, paired by document and seed; empty for the reference."""
    cells: dict[str, float]
    """The same by cell."""
    chosen: dict[str, dict[str, JsonValue]]
    """The parameters chosen, by seed."""
    nearest: dict[str, dict[str, str]]
    """Of the nearest specialist: by seed and unseen cell the cell whose specialist it is."""
    error: str | None
    """Why it has no scores."""


class Agreement(Ranged):
    """Spearman's correlation of held-in and unseen scores over methods."""

    methods: int
    """How many."""


class SensitivityPoint(Part):
    """Scores at one value of a parameter."""

    value: JsonValue
    """Of the parameter."""
    scores: dict[Group, float]
    """On held-out documents, under the first seed."""


class Sensitivity(Part):
    """How scores change with one parameter, the others as they are."""

    method: str
    """Entry of the plan."""
    parameter: str
    """Its name."""
    points: list[SensitivityPoint]
    """In the order of values."""
    spread: dict[Group, float]
    """The highest score less the lowest."""


class OverOrders(Part):
    """A mean over random orders."""

    value: float
    """The mean."""
    stderr: float | None
    """Its standard error; null for one order."""


class NumberOfModels(Part):
    """Scores of merges of so many models."""

    method: str
    """Entry of the plan, untuned."""
    models: int
    """How many are merged."""
    orders: int
    """From how many orders, of which some may begin alike."""
    scores: dict[Group, OverOrders]
    """On held-out documents, under the first seed; held in are the cells of the models merged."""


class Spent(Part):
    """What something took."""

    seconds: float
    """Of the wall, the median over seeds."""
    memory: int | None
    """Bytes at the peak beyond those held before; null where the system does not tell."""
    flops: int | None
    """Floating-point operations; null where they were not counted."""


class MethodCost(Part):
    """What one merge of all specialists takes, with its parameters as they are, measured from nothing."""

    method: str
    """Entry of the plan."""
    merge: Spent | None
    """Of the merge itself; null where it failed."""
    statistics: Spent | None
    """Of what is measured on data before; null for a method that sees none."""


class EvaluationCost(Spent):
    """What scoring one model takes, the same for every merge."""

    documents: int
    """How many are scored."""


class Prerequisites(Part):
    """What a method asks for beside the models."""

    method: str
    """Entry of the plan."""
    merge_method: str
    """The method that it is."""
    taxon: str
    """Its group."""
    base: bool
    """Whether it needs the base model."""
    statistics: str | None
    """What is measured of each model; null for nothing."""
    data: bool
    """Whether it needs documents."""
    tuning: list[str]
    """Parameters that were tuned."""
    random: bool
    """Whether it draws."""


class Finding(Part):
    """A finding of Tam et al. (arXiv 2409.18314), held against this comparison."""

    finding: str
    """The claim."""
    verdict: Literal["agree", "disagree", "cannot be told"]
    """By a rule made beforehand."""
    told: str
    """The figures."""


class MethodComparison(Answer):
    """Merge methods compared."""

    schema_: Literal["kinship.method-comparison/2"] = named("kinship.method-comparison/2")
    plan: dict[str, JsonValue]
    """The plan, with full paths; what was left at its default is left out."""
    cells: dict[str, ComparedCell]
    """By name."""
    seeds: list[int]
    """Of splits and draws."""
    conditions: dict[str, str]
    """What scores were made with."""
    reference: str
    """The method that others are compared with, untuned."""
    rows: list[ComparedRow]
    """Baselines, controls, methods."""
    rankings: dict[Group, list[str]]
    """Labels of the methods' rows, the best first: two rankings, of which neither is the other's."""
    agreement: dict[Literal["untuned", "tuned"], Agreement]
    """How alike they are; empty without unseen cells."""
    sensitivity: list[Sensitivity]
    """By method and parameter."""
    number: list[NumberOfModels]
    """By method and number of models."""
    costs: list[MethodCost]
    """By method."""
    evaluation: EvaluationCost | None
    """Null where everything had been scored before."""
    prerequisites: list[Prerequisites]
    """By method."""
    findings: list[Finding]
    """One for each of the paper's."""


def compare_methods(
    plan: "ComparisonPlan",
    folder: Path,
    *,
    root: Path = Path(),
    cache: "ScoreCache | None" = None,
    progress: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> MethodComparison:
    """Compare as ``plan`` says, in ``folder``, where it goes on if it was begun; paths count from ``root``.

    Raises the errors of `search.comparison.running.run_comparison`.
    """
    from search.comparison.result import told
    from search.comparison.running import run_comparison

    found = run_comparison(plan, folder, root=root, cache=cache, progress=progress)
    return MethodComparison.model_validate(told(found))


def read_comparison(path: Path) -> MethodComparison:
    """The answer in a file that `kinship compare` wrote. Raises `InvalidConfig` where it is none."""
    from pydantic import ValidationError

    from kinship.errors import InvalidConfig

    try:
        return MethodComparison.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidConfig(
            f"{path} is no comparison of methods: {str(error).splitlines()[0]}.",
            hint="Make it again: kinship compare PLAN.yml --out FOLDER.",
        ) from None


def table_rows(answer: MethodComparison) -> Iterator[list[object]]:
    """The CSV: a line for each row and group, with its interval, and for each row and cell."""
    yield ["row", "kind", "tuned", "on", "held_in", "value", "low", "high", "versus_reference", "low", "high"]
    for row in answer.rows:
        for group, score in row.scores.items():
            versus = row.versus_reference.get(group)
            ends = [versus.value, versus.low, versus.high] if versus else ["", "", ""]
            yield [row.label, row.kind, row.tuned, group, group == "held_in", score.value, score.low, score.high, *ends]
        for name, value in row.cells.items():
            yield [row.label, row.kind, row.tuned, name, answer.cells[name].held_in, value, *[""] * 5]
