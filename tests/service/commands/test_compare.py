"""`kinship compare` as people use it."""

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.answers import read_comparison
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


def test_a_training_that_was_killed_and_a_folder_called_demo_are_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    out = tmp_path / "out"
    (out / ".family.1234.partial").mkdir(parents=True)
    asked = []
    monkeypatch.setattr("service.demo.compared.demo_plan", lambda folder, **_: asked.append(folder))
    _plan("demo", out)
    assert asked == [out]
