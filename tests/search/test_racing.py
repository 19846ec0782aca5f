"""Searches that stop scoring candidates which will not make it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from evaluators.racing.race import Race
from kinship.errors import EvaluationFailed
from search.config import RunConfig
from search.ledger.records import Record, best_offspring
from search.running import evaluation
from tests.search.runs import MANY, Interrupted, Scene, WeightEvaluator, failing, interrupting

RACE = {"enabled": True, "minimum": 6}


def config(scene: Scene, **changes: Any) -> RunConfig:
    return scene.config(**{"strategy": {"k": 2}, "stop": {"generations": 4}, "race": RACE, **changes})


def evaluator(scene: Scene, **options: Any) -> WeightEvaluator:
    return scene.evaluator(tasks=MANY, **options)


def stopped(records: list[Record]) -> list[Record]:
    return [r for r in records if "search" in r.scores and not r.scores["search"].complete]


@pytest.fixture
def raced(scene: Scene) -> tuple[Scene, WeightEvaluator]:
    judge = evaluator(scene)
    scene.run("run", config(scene), judge)
    return scene, judge


def test_a_race_spares_documents_and_finds_the_same_best(raced: tuple[Scene, WeightEvaluator]) -> None:
    scene, judge = raced
    plain = evaluator(scene)
    scene.run("plain", config(scene).model_copy(update={"race": scene.config().race}), plain)
    records, full = scene.records("run"), scene.records("plain")
    best, expected = best_offspring(records), best_offspring(full)
    assert best is not None
    assert expected is not None
    assert best.identity == expected.identity
    assert stopped(records)
    asked = sum(len(documents) for _, documents in judge.calls)
    assert asked < sum(len(documents) for _, documents in plain.calls)


def test_who_is_stopped_has_an_estimate_and_does_not_rank(raced: tuple[Scene, WeightEvaluator]) -> None:
    scene, judge = raced
    seen: dict[str, list[int]] = {}
    for id, documents in judge.calls:
        seen[id] = seen.get(id, []) + [document for document in documents if document < 60]  # the others are held out
    people = {individual["id"]: individual for individual in scene.export("run")["individuals"]}
    for record in stopped(scene.records("run")):
        entry = people[record.id]["scores"]["search"]
        assert entry["complete"] is False
        assert entry["documents"] == len(seen[record.twin or record.id]) < 60
        assert entry["stderr"] > 0
        assert entry["stopped"]["rival"] in people
        assert not record.ranks
        assert record.individual().complete is False
    assert all(people[id]["scores"]["search"]["complete"] for id in ("base", "near", "kin", "far"))


def test_nobody_is_asked_for_a_document_twice(raced: tuple[Scene, WeightEvaluator]) -> None:
    _, judge = raced
    pairs = [(id, document) for id, documents in judge.calls for document in documents]
    assert len(pairs) == len(set(pairs))


def test_a_race_interrupted_at_every_evaluation_ends_as_if_it_had_not_been(
    raced: tuple[Scene, WeightEvaluator],
) -> None:
    """Every process gives three results and is gone in the next."""
    scene, calm = raced
    calls: list[tuple[str, list[int]]] = []
    while True:
        judge = evaluator(scene, before=interrupting(3))
        try:
            scene.run("again", config(scene), judge)
        except Interrupted:
            calls += judge.calls
        else:
            break
    assert calls + judge.calls == calm.calls
    assert scene.text("again") == scene.text("run")


def test_a_candidate_that_fails_in_the_middle_leaves_the_race(scene: Scene) -> None:
    seen: list[str] = []

    def before(id: str, number: int) -> None:
        seen.append(id)
        if id == "1-2" and seen.count(id) == 3:
            raise EvaluationFailed("out of memory")

    scene.run("run", config(scene), evaluator(scene, before=before))
    record = next(r for r in scene.records("run") if r.id == "1-2")
    assert record.error == "out of memory"
    assert record.scores == {}
    assert seen.count("1-2") == 3
    scene.run("run", config(scene, stop={"generations": 4}), evaluator(scene, before=failing("nobody")))


@pytest.mark.parametrize("price", [None, lambda: 7.0], ids=["unknown", "known"])
def test_a_race_is_told_what_documents_cost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, price: Callable[[], float] | None
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(
        evaluation, "Race", lambda *given, **options: told.append(options["prices"]) or Race(*given, **options)
    )
    scene.run("run", config(scene), scene.evaluator(tasks=[replace(MANY[0], price=price)]))
    assert told
    assert all(prices == ({"fake": 7.0} if price else None) for prices in told)


@pytest.mark.parametrize("kind", ["weighted", "normalised"])
def test_aggregates_race_too(scene: Scene, kind: str) -> None:
    aggregate = {"kind": kind, "weights": {"fake": 2.0}}
    scene.run("run", config(scene, aggregate=aggregate), evaluator(scene))
    people = {i["id"]: i["scores"]["search"] for i in scene.export("run")["individuals"] if i["scores"]}
    founders = [people[id] for id in ("near", "kin", "far")]
    if kind == "normalised":
        assert (min(f["value"] for f in founders), max(f["value"] for f in founders)) == (0.0, pytest.approx(1.0))
    for entry in people.values():
        mean = entry["tasks"]["fake"]["value"]
        low, high = (pick(f["tasks"]["fake"]["value"] for f in founders) for pick in (min, max))
        expected = (mean - low) / (high - low) if kind == "normalised" else mean
        assert entry["value"] == pytest.approx(expected)
