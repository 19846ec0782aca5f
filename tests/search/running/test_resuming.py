"""Runs that are interrupted, resumed, extended, or mistaken for one another."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from evaluators.cache import ScoreCache
from kinship.errors import LedgerError, MismatchedModels
from search.ledger.location import LEDGER_NAME
from search.running.coordinator import Search
from tests.conftest import MakeModel
from tests.search.runs import LINEAR, SLERP, VARIANTS, Interrupted, Scene, descents, failing, interrupting, rewrite

# Interruptions


def test_running_a_finished_run_again_adds_nothing(scene: Scene) -> None:
    reason = scene.run("run")
    text, evaluator = scene.text("run"), scene.evaluator()
    assert scene.run("run", evaluator=evaluator) == reason
    assert evaluator.calls == []
    assert scene.text("run") == text


# The partner's choice and the merge are interrupted apart: each variant once, each merge once.
@pytest.mark.parametrize(
    ("variant", "merge"), [*((variant, LINEAR) for variant in VARIANTS), ("kinship", SLERP)], ids=[*VARIANTS, "slerp"]
)
def test_a_run_interrupted_at_every_evaluation_ends_as_if_it_had_not_been(
    scene: Scene, variant: str, merge: dict[str, Any]
) -> None:
    """Every process scores one candidate and is gone in the next."""
    config = scene.config(strategy={"variant": variant}, merge=merge)
    calm = scene.evaluator()
    scene.run("calm", config, calm)
    calls = []
    for _ in calm.calls[:-1]:
        evaluator = scene.evaluator(interrupting(1))
        with pytest.raises(Interrupted):
            scene.run("run", config, evaluator)
        calls += evaluator.calls
    last = scene.evaluator()
    scene.run("run", config, last)
    assert scene.text("run") == scene.text("calm")
    assert calls + last.calls == calm.calls


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.soak)])
def test_a_run_interrupted_once_ends_as_if_it_had_not_been(scene: Scene, step: int) -> None:
    """In every ``step``th evaluation; what starts in any of them is seen above."""
    config = scene.config(merge=LINEAR)
    calm = scene.evaluator()
    scene.run("calm", config, calm)
    for number in range(0, len(calm.calls), step):
        first, second = scene.evaluator(interrupting(number)), scene.evaluator()
        with pytest.raises(Interrupted):
            scene.run(f"run-{number}", config, first)
        assert scene.export(f"run-{number}")["stopped"] is None
        scene.run(f"run-{number}", config, second)
        assert scene.text(f"run-{number}") == scene.text("calm")
        assert first.calls + second.calls == calm.calls  # nothing is evaluated twice


def test_a_run_interrupted_at_every_event_ends_as_if_it_had_not_been(scene: Scene) -> None:
    """One run that gets one event further each time it is started, with a candidate that fails."""
    before = failing("1-2")
    events: list[str] = []
    scene.run("calm", evaluator=scene.evaluator(before), observer=lambda name, facts: events.append(name))
    results = ("scored", "failed")
    told: list[str] = []
    for attempt in range(len(events) + 1):
        seen: list[str] = []

        def observer(name: str, facts: Mapping[str, Any], seen: list[str] = seen, attempt: int = attempt) -> None:
            seen.append(name)
            if len(seen) > attempt:
                raise Interrupted

        with suppress(Interrupted):
            scene.run("run", evaluator=scene.evaluator(before), observer=observer)
        told += [name for name in seen if name in results]
        if len(seen) <= attempt:
            break
    assert scene.text("run") == scene.text("calm")
    assert told == [name for name in events if name in results]  # no result is lost or told twice


def test_a_score_cache_spares_evaluations_and_changes_nothing(scene: Scene) -> None:
    cache = ScoreCache(scene.folder / "scores.sqlite")
    scene.run("plain")
    scene.run("first", cache=cache)
    evaluator = scene.evaluator()
    scene.run("second", evaluator=evaluator, cache=cache)
    assert evaluator.calls == []
    assert scene.text("plain") == scene.text("first") == scene.text("second")


# Resuming another run


def resumable(scene: Scene, **changes: Any) -> None:
    with pytest.raises(Interrupted):
        scene.run("run", scene.config(**changes), scene.evaluator(interrupting(6)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "'seed': 0, not 1"),
        ({"merge": SLERP}, "'merge.method': 'linear', not 'slerp'"),
        ({"strategy": {"k": 4}}, r"'strategy\.k': \d, not 4"),
        ({"evaluate": {"tasks": ["fake"], "limit": 7}}, r"'evaluate\.limit': None, not 7"),
    ],
    ids=["seed", "merge", "strategy", "evaluate"],
)
def test_another_config_is_refused(scene: Scene, change: dict[str, Any], said: str) -> None:
    resumable(scene)
    with pytest.raises(LedgerError, match=f"another {said}"):
        scene.run("run", scene.config(**change))
    assert scene.export("run")["config"] == scene.config().model_dump(mode="json", exclude={"workers"})


def test_one_founder_more_is_refused(scene: Scene) -> None:
    resumable(scene)
    more = replace(scene, founders=scene.founders | {"more": scene.founders["far"]})
    with pytest.raises(LedgerError, match="another 'founders'"):
        more.run("run")


@pytest.mark.parametrize("changed", ["far", "base"])
def test_other_weights_are_refused(scene: Scene, changed: str) -> None:
    resumable(scene)
    file = (scene.base if changed == "base" else scene.founders[changed]) / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] += 1e-6
    save_file(tensors, file)
    with pytest.raises(LedgerError, match=f"weights of {changed} changed"):
        scene.run("run")


def test_founders_in_another_order_are_the_same_run(scene: Scene) -> None:
    scene.run("calm")
    resumable(scene)
    turned = replace(scene, founders=dict(reversed(scene.founders.items())))
    turned.run("run", evaluator=scene.evaluator())
    assert scene.text("run") == scene.text("calm")


def test_more_generations_extend_a_run(scene: Scene) -> None:
    longer = scene.config(stop={"generations": 5})
    scene.run("long", longer)
    scene.run("run")
    scene.run("run", longer)
    assert descents(scene.records("run")) == descents(scene.records("long"))
    found, expected = scene.records("run"), scene.records("long")
    assert [r.scores["search"] for r in found] == [r.scores["search"] for r in expected]
    assert scene.export("run")["stopped"] == "reached 5 generations"
    assert scene.export("run")["config"]["stop"]["generations"] == 5


@pytest.mark.parametrize(("few", "more"), [(1, 5), (2, 3), (4, 9)])
def test_more_evaluations_complete_a_generation_cut_short(scene: Scene, few: int, more: int) -> None:
    scene.run("long", scene.config(stop={"evaluations": more}))
    scene.run("run", scene.config(stop={"evaluations": few}))
    scene.run("run", scene.config(stop={"evaluations": more}))
    assert descents(scene.records("run")) == descents(scene.records("long"))


def test_fewer_evaluations_keep_what_there_is(scene: Scene) -> None:
    scene.run("run", scene.config(stop={"evaluations": 6}))
    before = descents(scene.records("run"))
    assert scene.run("run", scene.config(stop={"evaluations": 4})) == "reached 4 evaluations"
    assert descents(scene.records("run")) == before


def test_an_extended_run_has_not_stopped_until_it_has(scene: Scene) -> None:
    scene.run("run", scene.config(stop={"generations": 1}))
    with pytest.raises(Interrupted):
        scene.run("run", scene.config(), scene.evaluator(interrupting(0)))
    assert scene.export("run")["stopped"] is None


def test_two_searches_in_one_folder_are_refused(scene: Scene) -> None:
    with Search(scene.config(), scene.folder / "run", evaluator=scene.evaluator()):
        with pytest.raises(LedgerError, match="Another process is running"):
            scene.run("run")
        scene.run("another")
    scene.run("run")


def test_a_search_that_cannot_start_leaves_the_folder_free(scene: Scene, make_model: MakeModel) -> None:
    other = replace(scene, founders=scene.founders | {"odd": make_model("odd", shapes={"model.norm.weight": (4,)})})
    with pytest.raises(MismatchedModels):
        other.run("run", evaluator=scene.evaluator())
    assert scene.run("run") == "reached 3 generations"


def test_a_ledger_of_other_proposals_is_refused(scene: Scene) -> None:
    scene.run("run")
    statement = "UPDATE individual SET recipe = replace(recipe, 'kin', 'far') WHERE generation = 1"
    rewrite(scene.folder / "run" / LEDGER_NAME, statement)
    with pytest.raises(LedgerError, match="Generation 1"):
        scene.run("run", scene.config(stop={"generations": 4}))
