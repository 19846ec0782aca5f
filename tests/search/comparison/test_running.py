"""Comparisons of real models: scores are those of scoring, failures cost only themselves, nothing is done twice."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import search.comparison.running as running
from evaluators.settings import EvaluateSettings
from kinship.errors import InputsChanged, InvalidConfig, NonFiniteWeights, OutputNotWritable
from merging.merge import write_merge
from search.comparison.arms import Arm, whole
from search.comparison.making import Made
from search.comparison.plan import ComparisonPlan, parse_plan
from search.comparison.result import told
from service.answers import MethodComparison, score_models
from tests.search.comparison.plans import content_of

if TYPE_CHECKING:
    from service.demo.family import Family


def compared(content: dict[str, Any], folder: Path, **options: Any) -> MethodComparison:
    found = running.run_comparison(parse_plan(content), folder, root=Path(), **options)
    return MethodComparison.model_validate(told(found))


@pytest.fixture(scope="module")
def answer(family: "Family", tmp_path_factory: pytest.TempPathFactory) -> tuple[MethodComparison, Path]:
    folder = tmp_path_factory.mktemp("compared") / "out"
    methods = content_of(family)["methods"] | {"too far": {"method": "linear"}}
    make = running.make

    def failing(plan: ComparisonPlan, arm: Arm, label: str, statistics: str | None = None) -> Made:
        if arm.method == "too far":
            raise NonFiniteWeights("It overflows.")
        return make(plan, arm, label, statistics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "make", failing)
        return compared(content_of(family, methods=methods), folder), folder


def test_a_baseline_has_the_scores_that_scoring_gives(answer: tuple[MethodComparison, Path], family: "Family") -> None:
    row = next(row for row in answer[0].rows if row.label == "base")
    means: dict[str, list[float]] = {}
    for seed in (0, 1):
        settings = EvaluateSettings(
            tasks=list(family.task_names), task_path=str(family.tasks), batch_size=256, split_seed=seed
        )
        tasks = score_models([str(family.base)], settings, Path()).models[0].splits["held_out"].tasks
        for name in ("sort", "max", "count", "add"):
            means.setdefault(name, []).append(tasks[f"demo_{name}"].value)
    assert row.cells == pytest.approx({name: sum(values) / 2 for name, values in means.items()})
    assert row.scores["held_in"].value == pytest.approx(sum(row.cells[name] for name in ("sort", "max", "count")) / 3)
    assert row.scores["unseen"].value == pytest.approx(row.cells["add"])


def test_rows_rankings_and_axes(answer: tuple[MethodComparison, Path]) -> None:
    found = answer[0]
    rows = {row.label: row for row in found.rows}
    assert list(rows) == [
        "base", "specialists", "nearest specialist", "multitask", "random task vectors", "same data (sort)",
        "linear", "linear (tuned)", "task_arithmetic", "dare", "too far",
    ]  # fmt: skip
    assert set(rows["nearest specialist"].nearest["0"]) == {"add"}
    assert set(rows["linear (tuned)"].chosen) == {"0", "1"}
    for ranking in found.rankings.values():
        assert sorted(ranking) == sorted(["linear", "linear (tuned)", "task_arithmetic", "dare"])
    lambdas = next(line for line in found.sensitivity if line.method == "task_arithmetic")
    assert [point.value for point in lambdas.points] == [0.0, 1.0]
    assert [(row.models, row.orders) for row in found.number] == [(1, 2), (2, 2), (3, 2)]
    assert {cost.method for cost in found.costs if cost.merge} == {"linear", "task_arithmetic", "dare"}
    assert {each.verdict for each in found.findings} <= {"agree", "disagree", "cannot be told"}


def test_an_arm_that_fails_costs_only_itself_and_says_why(answer: tuple[MethodComparison, Path]) -> None:
    row = next(row for row in answer[0].rows if row.label == "too far")
    assert row.error == "It overflows."
    assert row.scores == {}


def test_tuning_saw_the_search_split_alone(answer: tuple[MethodComparison, Path], family: "Family") -> None:
    """Whatever held-out documents say, the same is chosen: the best on search documents of held-in cells."""
    content = content_of(family, seeds=[0], methods={"linear": {"tune": {"scale": [0.5, 1.5]}}}, number={})
    plan = parse_plan(content)
    outcomes = running.run_comparison(plan, answer[1], root=Path())
    held_out = {
        (name, document) for name, splits in outcomes.tested.splits[0].items() for document in splits["held_out"]
    }
    turned = {
        arm: running.Outcome(
            {
                name: {at: 1 - value if (name, at) in held_out else value for at, value in values.items()}
                for name, values in outcome.values.items()
            },
            outcome.done,
        )
        for arm, outcome in outcomes.arms.items()
    }
    as_it_is = told(outcomes)
    other = told(running.Outcomes(outcomes.plan, outcomes.tested, turned))
    assert [row["chosen"] for row in as_it_is["rows"]] == [row["chosen"] for row in other["rows"]]


def test_what_is_done_is_not_done_again(
    answer: tuple[MethodComparison, Path], family: "Family", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another plan in the same folder finds all arms that it has in common with the first."""

    def never(*_: object) -> Any:
        raise AssertionError("an arm was made anew")

    monkeypatch.setattr(running, "make", never)
    steps: list[tuple[int, int]] = []
    again = compared(content_of(family, seeds=[1, 0]), answer[1], progress=lambda *step: steps.append(step[:2]))
    ((done, total),) = steps  # the time left is told from what is made, not from what was there
    assert done == total
    assert {row.label for row in again.rows} == {row.label for row in answer[0].rows} - {"too far"}


def test_a_cell_without_its_task_and_a_method_of_two_models_are_refused_before_any_work(
    family: "Family", tmp_path: Path
) -> None:
    cells = content_of(family)["cells"] | {"other": {"task": "demo_sorted"}}
    with pytest.raises(InvalidConfig, match="demo_sorted"):
        compared(content_of(family, cells=cells), tmp_path / "a")
    with pytest.raises(InvalidConfig, match="slerp cannot be compared"):
        compared(content_of(family, methods={"slerp": {"parameters": {"t": 0.5}}}, number={}), tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_experts_beside_a_merge_take_part_in_its_scores(family: "Family", tmp_path: Path) -> None:
    """The row of smile has the scores that its written merge has, and not those of the weights alone."""
    methods = {"linear": {}, "smile": {"parameters": {"rank": 4}}}
    content = content_of(family, seeds=[0], methods=methods, number={}, controls=[])
    found = {row.label: row for row in compared(content, tmp_path / "out").rows}
    plan = parse_plan(content)
    written = write_merge(whole(plan, "smile", 0).recipe(plan), tmp_path / "written")
    bare = tmp_path / "bare"
    shutil.copytree(written, bare, ignore=shutil.ignore_patterns("smile.*"))
    settings = EvaluateSettings(**content["evaluate"])
    of_experts, alone = (
        {name: one.splits["held_out"].tasks[f"demo_{name}"].value for name in content["cells"]}
        for one in score_models([str(written), str(bare)], settings, Path()).models
    )
    assert found["smile"].cells == pytest.approx(of_experts)
    assert of_experts != alone


def test_a_file_that_changes_ends_it_and_nothing_is_kept_of_the_change(
    family: "Family", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put back, the same command ends as if nothing had been: no arm is known by other weights than it says."""
    copy = tmp_path / "max-add"
    shutil.copytree(next(path for path in family.founders if Path(path).name == "max-add"), copy)
    cells = content_of(family)["cells"] | {"max": {"task": "demo_max", "model": str(copy)}}
    content = content_of(family, cells=cells, methods=["linear"], number={}, seeds=[0], controls=[])
    calm = compared(content, tmp_path / "calm")
    file, make = copy / "model.safetensors", running.make
    whole, times = file.read_bytes(), file.stat()

    def write(content: bytes) -> None:
        with file.open("r+b") as stream:
            stream.write(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    def disturbed(plan: ComparisonPlan, arm: Arm, label: str, statistics: str | None = None) -> Made:
        if arm.kind == "merge":
            half = len(whole) // 2
            write(whole[:half] + bytes(reversed(whole[half:])))
        return make(plan, arm, label, statistics)

    with monkeypatch.context() as patch:
        patch.setattr(running, "make", disturbed)
        with pytest.raises(InputsChanged, match="max-add"):
            compared(content, tmp_path / "out")
    write(whole)
    again = compared(content, tmp_path / "out")
    assert [row.scores for row in again.rows] == [row.scores for row in calm.rows]


def test_a_full_disk_is_no_failure_of_an_arm(family: "Family", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Made:
        raise OutputNotWritable("There is no room.")

    make = running.make
    monkeypatch.setattr(running, "make", lambda *given: make(*given) if given[1].kind == "model" else refuse())
    with pytest.raises(OutputNotWritable, match="no room"):
        compared(content_of(family, methods=["linear"], number={}, seeds=[0]), tmp_path / "out")
