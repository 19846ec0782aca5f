"""Weights of children outside the span: what nobody needs any more is removed, and made again where it is needed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.base import Candidate
from kinship.errors import MalformedCheckpoint
from search.history.archive import archive, restore
from search.history.audit import verify_ledger
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.ledger.records import best_offspring, finalists, still_needed
from search.running.coordinator import CHILDREN, Search
from service.pages.contents import RunContents
from tests.search.runs import Before, Interrupted, Scene, WeightEvaluator, interrupting, rewrite

TIES = {"method": "ties", "parameters": {"density": 0.8, "weight": 0.5}}
LONG: dict[str, Any] = {"merge": TIES, "stop": {"generations": 7}, "strategy": {"k": 2}}


class Rising(WeightEvaluator):
    """Offspring are better than all before them, so that a search goes on."""

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        generation = candidate.id.partition("-")[0]
        level = 100.0 * int(generation) if generation.isdigit() else 0.0
        found = super().run(candidate, documents)["fake"]
        return {"fake": {document: level + value for document, value in found.items()}}


def evaluator(scene: Scene, before: Before = lambda id, number: None) -> Rising:
    return Rising(scene.optimum(), before)


def there(folder: Path) -> set[str]:
    return {path.stem for path in (folder / CHILDREN).iterdir()}


def pruned(folder: Path) -> list[str]:
    with Ledger.of_run(folder) as ledger:
        return [id for entry in ledger.diary() if entry.name == "pruned" for id in entry.facts["children"]]


def test_what_nobody_needs_is_removed(scene: Scene) -> None:
    config, folder = scene.config(**LONG), scene.folder / "run"
    scene.run("run", config, evaluator(scene))
    gone = pruned(folder)
    assert gone
    records = scene.records("run")
    stored = {record.id for record in records if record.generation > 0}
    assert there(folder) == stored - set(gone)
    assert len(gone) == len(set(gone))
    assert {*finalists(records, config.strategy)} & stored <= there(folder)
    assert {record.id for record in records if record.generation == records[-1].generation} <= there(folder)
    with Ledger.of_run(folder) as ledger:
        assert all(check.ok in (True, None) for check in verify_ledger(ledger))
        content = json.loads(json.dumps(archive(ledger), allow_nan=False))
        table = ledger.table()
    assert np.isnan(table.grams).any()
    with Ledger(scene.folder / LEDGER_NAME) as again:
        restore(content, again)
        np.testing.assert_array_equal(again.table().grams, table.grams)
    kinship = RunContents.open(folder).kinship
    assert not np.isnan(kinship.values).all(axis=1).any()


def test_nothing_is_removed_where_anybody_may_be_chosen(scene: Scene) -> None:
    scene.run("run", scene.config(**LONG | {"strategy": {"k": 2, "partner_pool": "all"}}), evaluator(scene))
    assert pruned(scene.folder / "run") == []
    assert there(scene.folder / "run") == {r.id for r in scene.records("run") if r.generation > 0}


def test_whoever_lives_has_all_its_kinship(scene: Scene) -> None:
    config = scene.config(**LONG)
    with Search(config, scene.folder / "run", evaluator=evaluator(scene)) as search:
        search.run()
        ids = [id for id in still_needed(search.records, config.strategy) if id != "base"]
        assert not np.isnan(search.kinship(ids).values).any()
        assert all(record.kinship is not None for record in search.records if record.generation > 0)


@pytest.mark.parametrize("number", [7, 12, 16])
def test_an_interrupted_run_keeps_and_removes_the_same(scene: Scene, number: int) -> None:
    config = scene.config(**LONG)
    scene.run("calm", config, evaluator(scene))
    with pytest.raises(Interrupted):
        scene.run("run", config, evaluator(scene, interrupting(number)))
    scene.run("run", config, evaluator(scene))
    assert scene.text("run") == scene.text("calm")
    assert there(scene.folder / "run") == there(scene.folder / "calm")
    with Ledger.of_run(scene.folder / "run") as one, Ledger.of_run(scene.folder / "calm") as other:
        np.testing.assert_array_equal(one.table().grams, other.table().grams)


def test_a_run_is_extended_though_all_its_children_are_gone(scene: Scene) -> None:
    scene.run("long", scene.config(**LONG), evaluator(scene))
    scene.run("run", scene.config(**LONG | {"stop": {"generations": 4}}), evaluator(scene))
    folder = scene.folder / "run"
    before = {path.stem: path.read_bytes() for path in (folder / CHILDREN).iterdir()}
    for path in (folder / CHILDREN).iterdir():
        path.unlink()
    scene.run("run", scene.config(**LONG), evaluator(scene))
    mine, theirs = scene.records("run"), scene.records("long")
    assert [(r.id, r.parents, r.fitness) for r in mine] == [(r.id, r.parents, r.fitness) for r in theirs]
    best = best_offspring(mine)
    assert best is not None
    with Search(scene.config(**LONG), folder, evaluator=evaluator(scene)) as search:
        list(search.candidate(best).tensors())
    for id in there(folder) & before.keys():
        assert (folder / CHILDREN / f"{id}.safetensors").read_bytes() == before[id]


def test_weights_that_cannot_be_made_as_they_were_are_refused(scene: Scene) -> None:
    config, folder = scene.config(**LONG), scene.folder / "run"
    scene.run("run", config, evaluator(scene))
    (child, *_) = sorted(there(folder))
    (folder / CHILDREN / f"{child}.safetensors").unlink()
    rewrite(folder / LEDGER_NAME, "UPDATE stored SET digest = 'of something else' WHERE individual = ?", child)
    with (
        Search(config, folder, evaluator=evaluator(scene)) as search,
        pytest.raises(MalformedCheckpoint, match=f"{child}, made again"),
    ):
        search.candidate(next(record for record in search.records if record.id == child))
    assert child not in there(folder)
