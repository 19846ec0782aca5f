"""Runs with several tasks: who is beaten by nobody on all of them at once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from evaluators.base import Candidate, Task
from search.history.export import export_run
from search.running.coordinator import Search
from service.pages.contents import RunContents
from service.pages.report import write_report
from tests.conftest import MakeModel
from tests.search.runs import HELD_OUT, SEARCH, Scene, WeightEvaluator, flat, make_scene
from tests.service.conftest import Kinship

NAMES = ("near's", "far's", "kin's")


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    return make_scene(make_model, tmp_path)


@dataclass
class Peaks:
    """A task for each founder, that it is the best at; its neighbours are the next best."""

    scene: Scene
    count: int
    conditions: Mapping[str, str] = field(default_factory=lambda: {"device": "cpu"})

    def __post_init__(self) -> None:
        founders = [name.removesuffix("'s") for name in NAMES[: self.count]]
        self.parts = [WeightEvaluator(flat(self.scene.founders[name])) for name in founders]
        self.tasks = tuple(
            Task(name, "closeness", f"{name}/1", {"search": SEARCH, "held_out": HELD_OUT})
            for name in NAMES[: self.count]
        )

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        return {
            name: part.run(candidate, {"fake": documents[name]})["fake"]
            for name, part in zip(NAMES, self.parts, strict=False)
            if name in documents
        }


def ran(scene: Scene, tasks: int, objectives: str) -> Path:
    strategy = {"name": "bayesian", "batch": 3, "objectives": objectives}
    config = scene.config(strategy=strategy, stop={"evaluations": 9}, evaluate={"tasks": list(NAMES[:tasks])})
    folder = scene.folder / f"{tasks}-{objectives}"
    with Search(config, folder, evaluator=Peaks(scene, tasks)) as search:
        search.run()
    return folder


@pytest.mark.parametrize("tasks", [2, 3])
def test_the_front_is_what_nobody_beats(scene: Scene, kinship: Kinship, tasks: int) -> None:
    folder = ran(scene, tasks, "tasks")
    export = json.loads(kinship("runs", "show", folder, "--json").out)
    people = {each["id"]: each for each in export["individuals"] if each["id"] != "base" and not each["twin"]}
    means = {id: [task["value"] for task in each["scores"]["search"]["tasks"].values()] for id, each in people.items()}
    expected = [
        id
        for id, own in means.items()
        if not any(other != own and all(a >= b for a, b in zip(other, own, strict=True)) for other in means.values())
    ]
    assert export["pareto_front"] == expected
    assert {"near", "far"} <= set(expected)  # each is the best at its own
    assert len(expected) > tasks
    for id in expected:
        assert set(people[id]["scores"]) == {"search", "held_out"}
    assert f"Beaten by nobody on all tasks at once: {', '.join(expected)}." in kinship("runs", "show", folder).out
    write_report(folder / "report.html", {"run": RunContents.open(folder)}, "title")
    page = (folder / "report.html").read_text()
    assert "Pareto front" in page
    assert "near&#39;s, held-out" in page


def test_where_the_score_is_the_objective_the_front_is_not_scored_again(scene: Scene) -> None:
    with Search(scene.config(), scene.folder / "one", evaluator=scene.evaluator()) as search:
        search.run()
        assert export_run(search.ledger)["pareto_front"] == []
    folder = ran(scene, 2, "score")
    people = {each["id"]: each for each in RunContents.open(folder).export["individuals"]}
    front = RunContents.open(folder).export["pareto_front"]
    assert any("held_out" not in people[id]["scores"] for id in front)
