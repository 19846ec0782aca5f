"""`kinship compare` as people use it."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import service.demo.compared as compared
from service.answers import ComparedFamilies, read_comparison
from service.commands.compare import _plan
from tests.evaluators.conftest import write_llama
from tests.search.comparison.plans import content_of, write_plan
from tests.service.conftest import Kinship

if TYPE_CHECKING:
    from service.demo.family import Family


def test_table_csv_json_and_one_page_with_five_figures(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    plan, out = write_plan(tmp_path / "plan.yml", content_of(family, seeds=[0])), tmp_path / "out"
    outcome = kinship("compare", plan, "--out", out)
    assert outcome.code == 0, outcome.err
    for words in ("nearest specialist", "random task vectors", "linear (tuned)", "Best held-in:", "Best unseen:"):
        assert words in outcome.out
    answer = read_comparison(out / "comparison.json")
    with (out / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = {(row["row"], row["on"]): float(row["value"]) for row in rows}
    for row in answer.rows:
        assert told[row.label, "unseen"] == row.scores["unseen"].value
        assert told[row.label, "sort"] == row.cells["sort"]
    page = (out / "report.html").read_text()
    assert page.count("Plotly.newPlot(") == 5
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)


def test_a_folder_of_something_else_is_left_alone(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.yml", content_of(family))
    for name in ("letter.txt", "report.html"):  # the latter as `kinship demo` leaves it, beside a family
        mine = tmp_path / name
        (mine / "family").mkdir(parents=True)
        (mine / name).write_text("dear")
        outcome = kinship("compare", plan, "--out", mine)
        assert outcome.code == 1
        assert "holds no comparison" in outcome.err
        assert sorted(path.name for path in mine.iterdir()) == sorted(["family", name])


def test_what_a_plan_lacks_is_said_in_one_line(kinship: Kinship, tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.yml", {"base": "b"})
    outcome = kinship("compare", plan, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "lacks the key" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_shape_is_named_before_anything_is_done_and_the_folder_stays_free(
    kinship: Kinship, family: "Family", tmp_path: Path
) -> None:
    content = content_of(family, seeds=[0], methods={"linear": {}}, number={"methods": []})
    other = write_llama(tmp_path / "other")
    unlike = content["cells"] | {"max": {"task": "demo_max", "model": str(other)}}
    out = tmp_path / "out"
    for cells, said in (
        (unlike, "other has"),
        (unlike | {"max": {"model": "nowhere"}}, f"{tmp_path}/nowhere does not exist"),
    ):
        outcome = kinship("compare", write_plan(tmp_path / "plan.yml", content | {"cells": cells}), "--out", out)
        assert outcome.code == 1
        assert said in outcome.err
        assert not (out / "comparison.sqlite").exists()
    assert kinship("compare", write_plan(tmp_path / "plan.yml", content), "--out", out).code == 0


def hurried(monkeypatch: pytest.MonkeyPatch, steps: int, methods: list[str]) -> None:
    """Families that learn for a moment, and few methods."""
    quick = [replace(each, steps=max(2, steps // 10)) for each in compared.COMPARED.specialists]
    settings = replace(compared.COMPARED, steps=steps, documents=24, batch_size=8, specialists=tuple(quick))
    monkeypatch.setattr(compared, "COMPARED", settings)
    monkeypatch.setattr(compared, "_FEW", {name: compared._FEW[name] for name in methods})


def test_three_families_each_with_its_report_and_one_table(
    kinship: Kinship, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried(monkeypatch, 10, ["karcher"])
    monkeypatch.setattr(compared, "_ALL", {})
    monkeypatch.setattr(compared, "NUMBERED", [])
    out = tmp_path / "out"
    outcome = kinship("compare", "demo-full", "--out", out)
    assert outcome.code == 0, outcome.err
    answer = ComparedFamilies.model_validate_json((out / "families.json").read_bytes())
    assert answer.families == ["seed-0", "seed-1", "seed-2"]
    single = [read_comparison(out / name / "comparison.json") for name in answer.families]
    base = next(row for row in answer.rows if row.label == "base")
    assert list(base.scores["held_in"].by_family.values()) == [one.rows[0].scores["held_in"].value for one in single]
    assert all((out / name / "report.html").is_file() for name in answer.families)
    assert len({(out / name / "tasks" / "sort.jsonl").read_text() for name in answer.families}) == 3
    assert "Means over seed-0, seed-1, seed-2" in outcome.out


@pytest.mark.soak
def test_the_whole_of_demo_full(kinship: Kinship, tmp_path: Path) -> None:
    """Half an hour of CPU: three families, all axes."""
    outcome = kinship("compare", "demo-full", "--out", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    answer = ComparedFamilies.model_validate_json(outcome.out)
    rows = {row.label: row for row in answer.rows}
    assert len(rows) == 33, "nothing failed in any family"
    assert rows["specialists"].versus_reference["held_in"].value > 0
    assert rows["base"].scores["unseen"].value > 0.02, "chains are within reach"
    number = {row.models for row in read_comparison(tmp_path / "out" / "seed-2" / "comparison.json").number}
    assert number == {1, 2, 3, 4, 5}


def test_a_training_that_was_killed_and_a_folder_called_demo_are_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    out = tmp_path / "out"
    (out / ".family.1234.partial").mkdir(parents=True)
    asked = []
    monkeypatch.setattr("service.demo.compared.demo_plan", lambda folder, **_: asked.append(folder))
    _, start = _plan("demo", out, tmp_path / "elsewhere")
    assert asked == [out]
    assert start == out, "a ready plan's paths count from where it was made, whatever --root says"
