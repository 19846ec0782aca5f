"""Ledgers that somebody removed, emptied or copied, and families that moved."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kinship.errors import InputsChanged, LedgerError
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.running.coordinator import Search
from tests.search.runs import Interrupted, Scene, interrupting

TIES = {"method": "ties", "parameters": {"density": 0.5}}


def beside(file: Path) -> list[Path]:
    return [file, *file.parent.glob(f"{file.name}-*")]


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda file: [each.unlink() for each in beside(file)], "is missing"),
    "emptied": (lambda file: os.truncate(file, 0), "is empty"),
    "another": (lambda file: (file.unlink(), Ledger(file).close()), "is empty: it holds no run"),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("at", [1, pytest.param(100, marks=pytest.mark.soak)])  # begun, ended
def test_a_run_without_its_ledger_does_not_start_over(scene: Scene, harm: str, at: int) -> None:
    try:
        scene.run("run", evaluator=scene.evaluator(interrupting(at)))
    except Interrupted:
        assert at == 1
    do, told = HARMS[harm]
    do(scene.folder / "run" / LEDGER_NAME)
    with pytest.raises(LedgerError, match=told) as raised:
        scene.run("run")
    assert "Put the ledger back" in raised.value.hint


def test_a_copy_without_its_wal_has_all_that_was_acknowledged(scene: Scene) -> None:
    copy, told = scene.folder / "copy.sqlite", []

    def observer(name: str, facts: object) -> None:
        told.append(name)
        if told.count("scored") == 5:
            shutil.copy(scene.folder / "run" / LEDGER_NAME, copy)
            raise Interrupted

    with pytest.raises(Interrupted):
        scene.run("run", observer=observer)
    with Ledger(copy) as ledger:
        assert sum(bool(record.scores) for record in ledger.records()) == 5


def test_a_lost_wal_is_told(scene: Scene) -> None:
    scene.run("run")
    file = scene.folder / "run" / LEDGER_NAME
    file.with_name(f"{file.name}-shm").touch()
    with pytest.warns(UserWarning, match="lost its -wal file"):
        scene.run("run")


def moved(scene: Scene) -> Scene:
    there = scene.folder / "elsewhere"
    there.mkdir()
    paths = {name: Path(shutil.move(path, there / path.name)) for name, path in scene.founders.items()}
    return replace(scene, base=Path(shutil.move(scene.base, there / "old")), founders=paths)


def test_a_family_that_moved_goes_on(scene: Scene) -> None:
    scene.run("calm")
    with pytest.raises(Interrupted):
        scene.run("run", evaluator=scene.evaluator(interrupting(6)))
    after = moved(scene)
    after.run("run", evaluator=after.evaluator())
    calm, run = after.export("calm"), after.export("run")
    assert run["config"]["base"] == str(after.base) != calm["config"]["base"]
    assert {**run, "config": None} == {**calm, "config": None}


def test_founders_by_other_names_are_told_apart_from_other_founders(scene: Scene) -> None:
    scene.run("run")
    names = {f"{name}-v2": path for name, path in scene.founders.items()}
    renamed = replace(scene, founders=names)
    with pytest.raises(LedgerError, match="by other names: near, kin, far") as raised:
        renamed.run("run", evaluator=scene.evaluator())
    assert f"near: {scene.founders['near']}" in raised.value.hint


def test_a_stored_child_that_was_exchanged_is_told(scene: Scene) -> None:
    config = scene.config(merge=TIES)
    with pytest.raises(Interrupted):
        scene.run("run", config, scene.evaluator(interrupting(6)))
    first, second = sorted((scene.folder / "run/children").iterdir())[:2]
    shutil.copy(first, second)
    with pytest.raises(InputsChanged, match=f"{second.name} is not what the run wrote there"):
        scene.run("run", config)
    second.unlink()
    with Search(config, scene.folder / "run", evaluator=scene.evaluator()) as search:
        search.run()
