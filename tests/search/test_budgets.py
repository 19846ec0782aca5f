"""What ends a run, what costs nothing, and what cannot be made."""

from typing import Any

import pytest

from kinship.errors import InvalidConfig, OutputNotWritable
from merging.offspring.basis import Basis
from search.ledger.ledger import Ledger
from search.running.coordinator import Search
from tests.search.runs import SEARCH, Interrupted, Scene, failing, interrupting


def test_documents_are_counted_between_generations(scene: Scene) -> None:
    # Base and founders: 4 models on 8 documents; generation 1: 3 more.
    for most, expected in ((32, 0), (33, 1), (56, 1), (57, 2)):
        name = f"run-{most}"
        assert scene.run(name, scene.config(stop={"documents": most})) == f"reached {most} documents"
        assert max(record.generation for record in scene.records(name)) == expected
    text = scene.text("run-57")
    scene.run("run-57", scene.config(stop={"documents": 57}))
    assert scene.text("run-57") == text


def test_hours_end_a_run_between_generations_and_can_be_extended(scene: Scene) -> None:
    scene.run("long")
    assert scene.run("run", scene.config(stop={"hours": 1e-9})) == "reached 1e-09 hours"
    assert max(record.generation for record in scene.records("run")) == 0
    with Ledger.of_run(scene.folder / "run") as ledger:
        assert [entry.name for entry in ledger.diary()] == ["started", "ended"]
        assert ledger.seconds() > 0
    assert scene.run("run") == "reached 3 generations"
    assert scene.text("run") == scene.text("long")


def test_the_clock_has_no_say_in_what_is_on_record(scene: Scene) -> None:
    scene.run("long")
    with pytest.raises(Interrupted):
        scene.run("run", evaluator=scene.evaluator(interrupting(5)))  # in the midst of generation 1
    assert scene.run("run", scene.config(stop={"hours": 1e-9})) == "reached 1e-09 hours"
    assert scene.records("run") == [r for r in scene.records("long") if r.generation < 2] or [
        (r.id, r.fitness) for r in scene.records("run")
    ] == [(r.id, r.fitness) for r in scene.records("long") if r.generation < 2]


def test_the_end_of_a_search_by_the_clock_survives_an_interruption(scene: Scene) -> None:
    config = scene.config(stop={"hours": 1e-9})
    with pytest.raises(Interrupted):
        scene.run("run", config, scene.evaluator(interrupting(5)))  # held-out documents of the second founder
    assert scene.export("run")["stopped"] is None
    with Ledger.of_run(scene.folder / "run") as ledger:
        assert ledger.diary()[-1].name == "ended"
    assert scene.run("run", config) == "reached 1e-09 hours"


def test_a_pause_is_written_down(scene: Scene) -> None:
    def interrupt(id: str, number: int) -> None:
        if number == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.run("run", evaluator=scene.evaluator(interrupt))
    with Ledger.of_run(scene.folder / "run") as ledger:
        assert ledger.diary()[-1].name == "paused"
    scene.run("calm")
    scene.run("run")
    assert scene.text("run") == scene.text("calm")


def test_a_double_is_scored_from_its_twin(scene: Scene) -> None:
    """Sums of 0 x better + 1 x worse parent are the worse parent again."""
    merge = {"method": "slerp", "parameters": {"t": 1.0}}
    evaluator = scene.evaluator()
    scene.run("run", scene.config(merge=merge, stop={"generations": 1}), evaluator)
    records = {record.id: record for record in scene.records("run")}
    doubles = [record for record in records.values() if record.generation == 1]
    assert len(doubles) == 3
    searched = [id for id, documents in evaluator.calls if documents == list(SEARCH)]
    assert searched == ["base", "near", "kin", "far"]
    for record in doubles:
        assert record.twin == record.parents[1]
        assert record.identity == records[record.parents[1]].identity
        assert record.fitness == records[record.parents[1]].fitness
        assert not record.ranks
    assert scene.export("run")["best_offspring"] is None


def test_a_double_of_a_failure_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = Basis.merge_or_add

    def twice(self: Basis, id: str, recipe: Any, genomes: Any, **options: Any) -> Any:
        child = merge(self, id, recipe, genomes, **options)
        return made.setdefault("1-1", child) if id == "1-3" else made.setdefault(id, child)

    made: dict[str, Any] = {}
    monkeypatch.setattr(Basis, "merge_or_add", twice)
    evaluator = scene.evaluator(failing("1-1"))
    scene.run("run", scene.config(stop={"generations": 2}), evaluator)
    records = {record.id: record for record in scene.records("run")}
    assert records["1-3"].twin == "1-1"
    assert records["1-3"].error == "It has the weights of 1-1, which failed: 1-1 gives NaN."
    assert "1-3" not in {id for id, _ in evaluator.calls}
    assert not {"1-1", "1-3"} & {parent for record in records.values() for parent in record.parents}


def breaking(monkeypatch: pytest.MonkeyPatch, id: str, error: Exception) -> None:
    merge = Basis.merge_or_add

    def broken(self: Basis, child: str, *given: Any, **options: Any) -> Any:
        if child == id:
            raise error
        return merge(self, child, *given, **options)

    monkeypatch.setattr(Basis, "merge_or_add", broken)


def test_a_child_that_cannot_be_merged_fails_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch, "1-2", InvalidConfig("Tensor 'w' of near, far: the weights sum to zero."))
    assert scene.run("run") == "reached 3 generations"
    text = scene.text("run")
    record = next(record for record in scene.records("run") if record.id == "1-2")
    assert (record.error, record.identity) == ("Tensor 'w' of near, far: the weights sum to zero.", None)
    with Ledger.of_run(scene.folder / "run") as ledger:
        ((failed,),) = ledger.failures().values()
    assert failed.stage == "merging"
    assert "merge_or_add" in failed.traceback
    assert "1-2" not in {parent for record in scene.records("run") for parent in record.parents}
    with Search(scene.config(), scene.folder / "run", evaluator=scene.evaluator()) as search:
        assert "1-2" not in search.kinship().ids
    scene.run("run", scene.config(stop={"generations": 4}))
    assert text.count('"id": ') < scene.text("run").count('"id": ')


def test_a_full_disk_is_no_failure_of_a_child(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch, "1-2", OutputNotWritable("Writing 1-2 failed: no space left."))
    with pytest.raises(OutputNotWritable):
        scene.run("run")
    monkeypatch.undo()
    scene.run("run")
    scene.run("calm")
    assert scene.text("run") == scene.text("calm")
