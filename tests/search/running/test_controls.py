"""The control of a search: what it is made of, that it stands apart, and that it survives whatever ends a process."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from evaluators.cache import ScoreCache
from evaluators.scores.splits import Split
from search.history.archive import archive, restore
from search.history.audit import verify_ledger
from search.history.export import export_run, to_json
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.ledger.records import best_offspring
from search.running import controls
from search.running.controls import heaviest_founder
from search.running.coordinator import Search
from search.running.evaluation import Evaluation
from tests.search.runs import HELD_OUT, LINEAR, SLERP, Interrupted, Scene, failing, flat, interrupting

CONTROLS = {"controls": ["random_vector"]}
TIES = {"method": "ties", "parameters": {"density": 0.8}}
METHODS = pytest.mark.parametrize("merge", [LINEAR, SLERP, TIES], ids=lambda merge: str(merge["method"]))


def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the weights of controls there to be looked at."""
    monkeypatch.setattr(controls.shutil, "rmtree", lambda place, **_: None)


def control(export: dict[str, Any]) -> dict[str, Any]:
    (found,) = export["controls"]
    return dict(found)


@METHODS
def test_it_is_the_same_merges_of_a_vector_as_long_as_the_founders(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, merge: dict[str, Any]
) -> None:
    kept(monkeypatch)
    made: list[controls.Counterfactual] = []
    make = controls.counterfactual
    monkeypatch.setattr(controls, "counterfactual", lambda *given: made.append(make(*given)) or made[-1])
    scene.run("run", scene.config(merge=merge, **CONTROLS))
    founder = control(scene.export("run"))["founder"]
    random = load_file(scene.folder / "run" / controls.FOLDER / "control-0-0.safetensors")
    base, trained = (load_file(path / "model.safetensors") for path in (scene.base, scene.founders[founder]))
    for name, tensor in random.items():
        drawn, learned = (one.double() - base[name].double() for one in (tensor, trained[name]))
        assert float(drawn.norm()) == pytest.approx(float(learned.norm()), rel=1e-5)
        assert abs(float(torch.cosine_similarity(drawn.flatten(), learned.flatten(), dim=0))) < 0.99
    best = best_offspring(scene.records("run"))
    assert best is not None
    if merge is LINEAR:  # its own row of coefficients, with the founder's column moved to the random vector
        with Ledger(scene.folder / "run" / LEDGER_NAME) as ledger:
            own, ids = ledger.genomes([best.id])[best.id].coefficients, ledger.table().rows
        (found,) = made
        moved = found.genome.coefficients
        place = ids.index(founder)
        np.testing.assert_allclose(moved[:, len(ids)], own[:, place], atol=1e-12)
        np.testing.assert_allclose(np.delete(moved[:, : len(ids)], place, 1), np.delete(own, place, 1), atol=1e-12)
        assert not moved[:, place].any()


@METHODS
def test_the_search_and_its_export_are_the_same_with_it(scene: Scene, merge: dict[str, Any]) -> None:
    plain, watched = scene.evaluator(), scene.evaluator()
    scene.run("plain", scene.config(merge=merge), plain)
    scene.run("run", scene.config(merge=merge, **CONTROLS), watched)
    (extra,) = watched.calls[len(plain.calls) :]
    assert watched.calls[: len(plain.calls)] == plain.calls
    with_it, without = scene.export("run"), scene.export("plain")
    found = control(with_it)
    assert extra == (found["id"], list(HELD_OUT))
    assert found["id"] == f"control-{with_it['best_offspring']}"
    assert with_it["verdict"].startswith(without["verdict"])
    for key in without.keys() - {"config", "controls", "verdict"}:
        assert with_it[key] == without[key]
    assert not (scene.folder / "run" / controls.FOLDER).exists()
    with Ledger(scene.folder / "run" / LEDGER_NAME) as ledger:
        assert all(check.ok is not False for check in verify_ledger(ledger))


def test_the_difference_is_paired_with_the_best_offspring(scene: Scene) -> None:
    scene.run("run", scene.config(**CONTROLS))
    export = scene.export("run")
    found = control(export)
    with Ledger(scene.folder / "run" / LEDGER_NAME) as ledger:
        mine, other = (ledger.results(id, "held_out")["fake"] for id in (found["of"], found["id"]))
    differences = np.array([mine[document] - other[document] for document in HELD_OUT])
    assert found["splits"]["held_out"]["value"] == pytest.approx(differences.mean())
    assert f"the same merge with a random task vector in the place of {found['founder']}" in export["verdict"]


@pytest.mark.parametrize("at", range(3))
def test_killed_at_any_moment_it_ends_as_if_never_interrupted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    config = scene.config(**CONTROLS)
    scene.run("whole", config)
    plain = scene.evaluator()
    scene.run("plain", scene.config(), plain)
    with monkeypatch.context() as patched:
        match at:
            case 0:  # the random vector is on disk, nothing of it in the ledger
                patched.setattr(controls, "genome_identity", _ends)
            case 1:  # it is in the ledger, without a score
                patched.setattr(Evaluation, "score", _ends_at_controls(Evaluation.score))
            case 2:  # it is being scored
                pass
        with pytest.raises(Interrupted):
            scene.run("run", config, scene.evaluator(interrupting(len(plain.calls))) if at == 2 else None)
    again = scene.evaluator()
    scene.run("run", config, again)
    assert [id for id, _ in again.calls] == [control(scene.export("whole"))["id"]]
    assert scene.text("run") == scene.text("whole")


def _ends(*_: object) -> None:
    raise Interrupted


def _ends_at_controls(score: Callable[..., None]) -> Callable[..., None]:
    def scored(self: Evaluation, ids: Iterable[str], split: Split) -> None:
        if any(id.startswith("control") for id in list(ids)):
            raise Interrupted
        score(self, ids, split)

    return scored


def test_it_is_added_to_a_finished_run_and_taken_from_the_cache(scene: Scene) -> None:
    cache = ScoreCache(scene.folder / "cache.sqlite")
    scene.run("whole", scene.config(**CONTROLS), cache=cache)
    scene.run("run", scene.config(), cache=cache)
    watched = scene.evaluator()
    scene.run("run", scene.config(**CONTROLS), watched, cache=cache)
    assert watched.calls == []
    assert scene.text("run") == scene.text("whole")


def test_an_extended_run_has_the_control_of_its_own_best(scene: Scene) -> None:
    short, long = ({"stop": {"generations": count}, **CONTROLS} for count in (1, 3))
    scene.run("run", scene.config(**short))
    before = control(scene.export("run"))
    scene.run("run", scene.config(**long))
    scene.run("whole", scene.config(**long))
    assert control(scene.export("run"))["of"] != before["of"]
    assert scene.text("run") == scene.text("whole")


@pytest.mark.parametrize("merge", [LINEAR, TIES], ids=lambda merge: str(merge["method"]))
def test_the_archive_has_it(scene: Scene, merge: dict[str, Any]) -> None:
    scene.run("run", scene.config(merge=merge, **CONTROLS))
    with Ledger(scene.folder / "run" / LEDGER_NAME) as ledger:
        content, export = archive(ledger), export_run(ledger)
    with Ledger(scene.folder / "other.sqlite", exclusive=True) as other:
        restore(content, other)
        assert to_json(export_run(other)) == to_json(export)
        assert archive(other)["controls"] == content["controls"]


def test_its_failure_is_told_and_ends_no_run(scene: Scene) -> None:
    scene.run("plain", scene.config())
    id = f"control-{scene.export('plain')['best_offspring']}"
    assert scene.run("run", scene.config(**CONTROLS), scene.evaluator(failing(id))) == "reached 3 generations"
    export = scene.export("run")
    assert control(export)["error"] == f"{id} gives NaN."
    assert export["verdict"].endswith(f"has no score: {id} gives NaN.")
    again = scene.evaluator()
    scene.run("run", scene.config(**CONTROLS), again)
    assert again.calls == []


def test_where_nothing_is_held_out_the_search_split_tells_and_that_is_said(scene: Scene) -> None:
    evaluate = {"tasks": ["fake"], "search_fraction": 1}
    evaluator = scene.evaluator()
    evaluator.tasks = [replace(task, documents={"search": range(13)}) for task in evaluator.tasks]
    scene.run("run", scene.config(evaluate=evaluate, **CONTROLS), evaluator)
    export = scene.export("run")
    assert control(export)["splits"].keys() == {"search"}
    assert export["verdict"].endswith("on the documents it was chosen by, which flatter it.")
    assert all(record.role != "control" for record in scene.records("run"))


@METHODS
def test_the_founder_that_weighs_most_is_replaced(scene: Scene, merge: dict[str, Any]) -> None:
    config = scene.config(merge=merge)
    scene.run("run", config)
    lengths = {name: float((flat(path) - flat(scene.base)).norm()) for name, path in scene.founders.items()}
    with Search(config, scene.folder / "run", evaluator=scene.evaluator()) as search:
        people = search._individuals
        for record in search.records:
            if record.role == "founder":
                assert heaviest_founder(people, record) == record.id
            elif record.generation == 1:
                assert heaviest_founder(people, record) in record.parents
            if record.generation == 1 and merge is not SLERP:  # both parents have the same coefficient
                assert heaviest_founder(people, record) == max(record.parents, key=lambda id: lengths[id]) or (
                    merge is TIES
                )
        assert heaviest_founder(people, people.records["base"]) is None


@pytest.mark.parametrize("name", ["control-0-0", "control-3-12"])
def test_no_founder_has_the_name_of_a_control(scene: Scene, name: str) -> None:
    with pytest.raises(Exception, match="cannot be called"):
        scene.config(founders={name: str(scene.base), "other": str(scene.base)})
