"""Whom a strategy recommends is on record, scored on held-out documents, and changes nothing else."""

import pytest

from search.running.coordinator import Search
from search.strategies.bayesian import Bayesian
from service.pages.contents import RunContents
from service.pages.report import write_report
from tests.search.runs import HELD_OUT, Interrupted, Scene

STRATEGY = {"name": "bayesian", "batch": 2}


def test_it_is_in_the_export_beside_the_best_score(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bayesian, "recommend", lambda self: "1-2")
    evaluator = scene.evaluator()
    config = scene.config(strategy=STRATEGY, stop={"evaluations": 6})
    scene.run("run", config, evaluator)
    export = scene.export("run")
    people = {one["id"]: one for one in export["individuals"]}
    best = max((id for id in people if id[0].isdigit()), key=lambda id: people[id]["scores"]["search"]["value"])
    assert export["recommended"] == "1-2" != export["best_offspring"] == best
    assert ("1-2", list(HELD_OUT)) in evaluator.calls
    assert "held_out" in people["1-2"]["scores"]


def test_a_strategy_without_an_opinion_recommends_nobody(scene: Scene) -> None:
    scene.run("run")
    assert scene.export("run")["recommended"] is None


def test_it_is_the_same_after_an_interruption_and_anew_after_an_extension(scene: Scene) -> None:
    config = scene.config(strategy=STRATEGY, stop={"evaluations": 6})
    scene.run("calm", config)

    def before(id: str, number: int) -> None:
        if number == 9:
            raise Interrupted

    with pytest.raises(Interrupted):
        scene.run("run", config, scene.evaluator(before))
    assert scene.export("run")["recommended"] is None
    scene.run("run", config)
    assert scene.text("run") == scene.text("calm")
    longer = scene.config(strategy=STRATEGY, stop={"evaluations": 8})
    with Search(longer, scene.folder / "run", evaluator=scene.evaluator()):
        pass
    assert scene.export("run")["recommended"] is None
    scene.run("run", longer)
    assert scene.export("run")["recommended"] in {one["id"] for one in scene.export("run")["individuals"]}


def test_the_report_says_so_where_it_is_another_than_the_best(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bayesian, "recommend", lambda self: "1-2")
    scene.run("run", scene.config(strategy=STRATEGY, stop={"evaluations": 6}))
    write_report(scene.folder / "report.html", {"a run": RunContents.open(scene.folder / "run")}, "A run", force=True)
    assert "expects more of 1-2" in (scene.folder / "report.html").read_text()
