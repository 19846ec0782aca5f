"""The demo's comparison: nothing unseen is practised, nothing asked is calibrated on, every method takes its recipe."""

import json
from pathlib import Path

import pytest

import service.demo.compared as compared
from search.comparison.arms import every_arm
from service.demo.family import Family, FamilySettings


@pytest.fixture
def plan_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def untrained(folder: Path, settings: FamilySettings, progress: object) -> Family:
        return Family(folder, folder / "base", (), folder / "tasks", ())

    monkeypatch.setattr(compared, "make_family", untrained)
    return tmp_path


def test_unseen_chains_are_in_nobodys_training() -> None:
    everyone = compared.COMPARED.specialists
    assert not set(compared.UNSEEN) & set(compared.COMPARED.skills)
    assert not set(compared.UNSEEN) & {skill for specialist in everyone for skill in specialist.own_skills}
    assert set(compared.SKILLS) <= {specialist.name for specialist in everyone}


def test_calibration_asks_none_of_the_documents_and_is_written_once(plan_folder: Path) -> None:
    compared.demo_plan(plan_folder)
    files = sorted((plan_folder / "calibration").iterdir())
    before = [file.read_bytes() for file in files]
    for file in files:
        texts = {json.loads(line)["text"] for line in file.read_text().splitlines()}
        lines = (plan_folder / "tasks" / file.name).read_text().splitlines()
        documents = [json.loads(line) for line in lines]
        assert len(documents) == compared.COMPARED.documents
        assert not texts & {(one["prompt"] + one["answer"]).strip() for one in documents}
    compared.demo_plan(plan_folder)
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("full", [False, True])
def test_every_arm_of_the_ready_plan_is_a_valid_recipe(plan_folder: Path, full: bool) -> None:
    plan = compared.demo_plan(plan_folder, full=full)
    assert len(plan.methods) >= 10
    assert len(plan.seeds) == 3
    arms = every_arm(plan)
    for arm in arms:
        if arm.kind == "merge":
            arm.recipe(plan)
    assert (len(arms) > 150) == full  # 121 and 189
