"""The smol family's comparison: each skill learnt in one form, and nobody taught what is asked."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest

import service.demo.smol.compared as compared
from search.comparison.arms import every_arm
from service.demo.family import Family
from service.demo.smol.deals import FORMS, GRID, HELD_IN, SKILLS
from service.demo.smol.family import texts_asked
from service.demo.smol.phenomena import PHENOMENA, lessons, pairs, phenomenon_named, write_tasks


def test_forms_ask_for_the_same_word_and_an_example_is_another_pair_that_is_right() -> None:
    bare = pairs(phenomenon_named("gap"), 30, 5)
    for form in FORMS:
        asked = phenomenon_named(f"gap_{form}")
        for pair in bare:
            made = asked.asked(pair, random.Random(1))
            assert (made.good, made.bad) == (pair.good, pair.bad)
            assert pair.text in made.text
            assert (made == pair) == (form == "statement")
    example = phenomenon_named("reflexive_example")
    for pair in pairs(example, 40, 2):
        first, _, rest = example.asked(pair, random.Random(3)).text.partition(". ")
        assert rest == pair.text != first
        subject = first.split(",")[0]
        women = {one.text.split(",")[0] for one in pairs(example, 300, 9) if one.good == "herself"}
        assert first.endswith("herself") == (subject in women)


def test_a_beginning_that_is_asked_is_taught_in_no_form(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks", GRID.asked, 30, 0)
    asked = texts_asked(Family(tmp_path, tmp_path, (), tmp_path / "tasks", ()))
    assert len(asked) > 300
    for name in ("gap_question", "gap_statement", "ever_example"):
        drawn = islice(lessons([name], [], random.Random(7), asked), 300)
        files = (tmp_path / "tasks").glob(f"{name.partition('_')[0]}_*.jsonl")
        documents = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        own = {document.get("beginning", document["text"]) for document in documents}
        assert own <= asked
        assert not [pair for pair in drawn if any(text in pair.text for text in own)]
    lines = (tmp_path / "tasks" / "gap_question.jsonl").read_text().splitlines()
    assert all(json.loads(line)["beginning"] in json.loads(line)["text"] for line in lines)


def test_each_skill_and_each_form_is_learnt_once_and_all_cells_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "family"
    family = Family(
        folder,
        folder / "base",
        tuple(folder / founder.name for founder in GRID.founders),
        folder / "tasks",
        tuple(f"smol_{name}" for name in GRID.asked),
        adapters=True,
    )
    monkeypatch.setattr(compared, "make_smol_family", lambda *_: family)
    plan = compared.smol_plan(tmp_path)
    assert plan.held_in == sorted(HELD_IN, key=plan.held_in.index)
    assert {plan.cells[name].skill for name in plan.held_in} == set(SKILLS) <= {one.name for one in PHENOMENA}
    assert {plan.cells[name].domain for name in plan.held_in} == set(FORMS)
    assert len(plan.unseen) == len(SKILLS) * len(FORMS) - len(HELD_IN)
    assert plan.cells["reflexive_statement"].model == "family/base+family/reflexive_statement"
    for arm in every_arm(plan):
        if arm.kind == "merge":
            arm.recipe(plan)
