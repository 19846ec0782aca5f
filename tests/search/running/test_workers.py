"""Who does the work, and how many they are, changes nothing but the time it takes."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kinship.errors import EvaluationFailed, InvalidConfig, LedgerError
from search.running.coordinator import Search
from search.running.workers import Describe, Handle, Setup, Work
from tests.search.runs import MANY, Scene

TIES: dict[str, Any] = {"method": "ties", "parameters": {"density": 0.9, "weight": 0.5}}


def written(scene: Scene) -> Path:
    """A search with racing, by a method that leaves the span, in which a candidate fails."""
    config = scene.config(
        merge=TIES, race={"enabled": True, "minimum": 6}, strategy={"k": 3}, stop={"generations": 3}
    ).model_dump(mode="json", exclude={"workers"})
    path = scene.folder / "scene.json"
    path.write_text(json.dumps({"config": config, "optimum": scene.optimum().tolist()}))
    return path


def found(scene: Path, seed: int, workers: int) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.search.conform",
            str(scene),
            str(scene.parent / f"{seed}-{workers}"),
            str(workers),
        ],
        env=os.environ | {"PYTHONHASHSEED": str(seed), "KINSHIP_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_ledger_whatever_the_hash_seed_and_the_workers(scene: Scene) -> None:
    path = written(scene)
    first = found(path, 0, 0)
    export = json.JSONDecoder().raw_decode(first)[0]
    scores = [person["scores"]["search"] for person in export["individuals"] if person["scores"]]
    assert [person["id"] for person in export["individuals"] if person["error"]] == ["1-2"]
    assert len({entry["complete"] for entry in scores}) == 2
    assert len(export["individuals"]) > 8
    assert found(path, 1, 2) == first


@pytest.mark.soak
def test_one_ledger_for_all_hash_seeds_and_workers(scene: Scene) -> None:
    path = written(scene)
    assert len({found(path, seed, workers) for seed in range(5) for workers in (1, 2, 3)}) == 1


def test_an_evaluator_that_is_an_object_works_in_this_process_alone(scene: Scene) -> None:
    with pytest.raises(InvalidConfig, match="cannot work in local workers") as raised:
        scene.run("run", scene.config(workers={"kind": "local"}))
    assert "evaluator_factory" in raised.value.hint
    assert not (scene.folder / "run").exists()


def test_other_workers_may_resume_a_run(scene: Scene) -> None:
    scene.run("run", scene.config(workers={"kind": "inline", "attempts": 2}))
    scene.run("run", scene.config(workers={"kind": "inline", "attempts": 5}, stop={"generations": 4}))
    assert scene.export("run")["stopped"] == "reached 4 generations"
    assert "workers" not in scene.export("run")["config"]


def test_a_payload_becomes_the_weights_of_the_individual(scene: Scene) -> None:
    config = scene.config(merge=TIES, stop={"generations": 2})
    with Search(config, scene.folder / "run", evaluator=scene.evaluator()) as search:
        search.run()
        setup = pickle.loads(pickle.dumps(Setup(config, None, scene.factory())))
        handle = setup()
        assert [task.name for task in handle(Describe()).tasks] == ["fake"]
        assert any(record.id in search.span.ids for record in search.records if record.generation)
        for record in search.records:
            genome, founders = search.genome(record.id), len(search.facts.digests)
            work = Work.of(
                record.id, "", genome, search.span, {"fake": [0]}, search.models, founders, {"fake": "fake/2"}
            )
            work = pickle.loads(pickle.dumps(work))
            assert len(pickle.dumps(work)) < 20_000
            here, there = dict(search.candidate(record).tensors()), dict(handle.candidate(work).tensors())
            assert here.keys() == there.keys()
            assert all((here[name] == there[name]).all() for name in here)


def test_what_an_evaluator_leaves_out_is_a_failure(scene: Scene) -> None:
    evaluator = scene.evaluator()
    run = evaluator.run

    def forgetful(candidate: Any, documents: Any) -> Any:
        results = run(candidate, documents)
        if candidate.id == "1-1":
            del results["fake"][3]
        return results

    evaluator.run = forgetful  # type: ignore[method-assign]
    scene.run("run", evaluator=evaluator)
    assert next(r.error for r in scene.records("run") if r.id == "1-1") == (
        "The evaluator gave no result for 1 documents of fake, the first of them 3."
    )


def test_nan_is_a_failure(scene: Scene) -> None:
    evaluator = scene.evaluator()
    run = evaluator.run
    evaluator.run = lambda candidate, documents: (  # type: ignore[method-assign]
        {"fake": dict.fromkeys(documents["fake"], float("nan"))} if candidate.id == "2-1" else run(candidate, documents)
    )
    scene.run("run", evaluator=evaluator)
    assert "gives nan on document 0 of fake" in str(next(r.error for r in scene.records("run") if r.id == "2-1"))


def test_a_failure_is_kept_with_its_traceback(scene: Scene) -> None:
    def before(id: str, number: int) -> None:
        if id == "1-3":
            raise ZeroDivisionError("a bug of the evaluator")

    scene.run("run", evaluator=scene.evaluator(before))
    from search.ledger.ledger import Ledger

    with Ledger.of_run(scene.folder / "run") as ledger:
        ((failed,),) = ledger.failures().values()
    assert (failed.stage, failed.kind, failed.attempts) == ("search", "raised", 1)
    assert failed.message == "ZeroDivisionError: a bug of the evaluator"
    assert "in before" in failed.traceback
    assert "Traceback" not in scene.text("run")


def test_other_tasks_cannot_go_on_with_a_run(scene: Scene) -> None:
    from dataclasses import replace

    scene.run("run")
    evaluator = scene.evaluator()
    evaluator.tasks = [replace(evaluator.tasks[0], digest="fake/other")]
    with pytest.raises(LedgerError, match="would not be comparable") as raised:
        scene.run("run", scene.config(stop={"generations": 5}), evaluator)
    assert "device cpu" in raised.value.hint


def test_public_benchmarks_want_a_word(scene: Scene) -> None:
    from dataclasses import replace

    evaluator = scene.evaluator()
    evaluator.tasks = [replace(evaluator.tasks[0], public=True)]
    with pytest.raises(InvalidConfig, match="public benchmarks"):
        scene.run("run", evaluator=evaluator)
    assert not (scene.folder / "run").exists()
    said = scene.config(evaluate={"tasks": ["fake"], "public_benchmarks": "acknowledged"}, stop={"generations": 1})
    scene.run("run", said, evaluator)


def test_a_handle_describes_what_it_serves(scene: Scene) -> None:
    evaluator = scene.evaluator()
    description = Handle(evaluator, {})(Describe())
    assert (list(description.tasks), dict(description.conditions)) == (list(evaluator.tasks), {"device": "cpu"})
    with pytest.raises(RuntimeError):
        description.run(None, {})


def test_what_documents_cost_travels_as_a_number_where_it_is_asked_for(scene: Scene) -> None:
    evaluator = scene.evaluator(tasks=[replace(MANY[0], price=lambda: 7.0), replace(MANY[0], name="other")])
    told = [pickle.loads(pickle.dumps(Handle(evaluator, {})(Describe(priced)))).tasks for priced in (True, False)]
    assert [[task.price and task.price() for task in tasks] for tasks in told] == [[7.0, None], [None, None]]


def test_a_founder_that_is_lost_ends_the_run(scene: Scene) -> None:
    with pytest.raises(EvaluationFailed, match="far could not be scored") as raised:
        scene.run("run", evaluator=scene.evaluator(lambda id, number: 1 / 0 if id == "far" else None))  # type: ignore[arg-type, return-value]
    assert "mend this model" in raised.value.hint
