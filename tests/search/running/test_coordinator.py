import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluators.cache import ScoreCache
from kinship.errors import EvaluationFailed
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.ledger.records import Record, best_offspring, best_so_far
from search.running.coordinator import Search
from tests.search.runs import HELD_OUT, LINEAR, SEARCH, VARIANTS, Scene, descents, failing, flat


def weights(search: Search, id: str) -> dict[str, torch.Tensor]:
    return dict(search.candidate(next(record for record in search.records if record.id == id)).tensors())


def best_ids(records: list[Record], count: int = 1) -> list[str]:
    """Ids of the best, equal scores by id; the base does not take part."""
    scored = [(-record.fitness, record.id) for record in records if record.id != "base" and record.fitness is not None]
    return [id for _, id in sorted(scored)[:count]]


def offspring(records: list[Record]) -> list[Record]:
    return [record for record in records if record.generation > 0]


# What a run does


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_run(scene: Scene, variant: str) -> None:
    evaluator = scene.evaluator()
    reason = scene.run("run", scene.config(strategy={"variant": variant}), evaluator)
    assert reason == "reached 3 generations"
    records = scene.records("run")
    assert [record.id for record in records[:7]] == ["base", "near", "kin", "far", "1-1", "1-2", "1-3"]
    assert {record.generation for record in records} == {0, 1, 2, 3}
    assert {record.role for record in offspring(records)} - {"greedy"} == {
        "vanilla": set(), "kinship": {"exploration"}, "random": {"random"}
    }[variant]  # fmt: skip
    searched = [id for id, documents in evaluator.calls if documents == list(SEARCH)]
    assert searched == [record.id for record in records if record.twin is None]  # everyone once, in order
    assert scene.export("run")["stopped"] == reason


def test_children_and_kinship_are_what_the_weights_say(scene: Scene) -> None:
    scene.run("run", scene.config(merge=LINEAR))
    base = flat(scene.base)
    with Search(scene.config(merge=LINEAR), scene.folder / "run", evaluator=scene.evaluator()) as search:
        laid_out = {
            record.id: torch.cat([tensor.flatten().double() for tensor in weights(search, record.id).values()])
            for record in search.records
        }
        for record in offspring(search.records):
            one, other = (laid_out[parent] for parent in record.parents)
            child = base + 1.2 * ((one + other) / 2 - base)
            assert torch.allclose(laid_out[record.id], child, atol=1e-6)
            expected = np.corrcoef((one - base).numpy(), (other - base).numpy())[0, 1]
            assert record.kinship == pytest.approx(expected, abs=1e-5)
        assert torch.equal(laid_out["far"].float(), flat(scene.founders["far"]).float())


def test_slerp_starts_from_the_better_parent(scene: Scene) -> None:
    config = scene.config(merge={"method": "slerp", "parameters": {"t": 0.2}})
    scene.run("run", config)
    with Search(config, scene.folder / "run", evaluator=scene.evaluator()) as search:
        by_id = {record.id: record for record in search.records}
        assert len(offspring(search.records)) > 3
        for record in offspring(search.records):
            better, worse = record.parents
            assert by_id[better].fitness >= by_id[worse].fitness  # type: ignore[operator]
            assert record.recipe["base_model"] == better
            one, other, child = (weights(search, id) for id in (better, worse, record.id))
            for name, tensor in child.items():
                a, b = one[name].double().flatten(), other[name].double().flatten()
                angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
                expected = (torch.sin(0.8 * angle) * a + torch.sin(0.2 * angle) * b) / torch.sin(angle)
                if torch.cos(angle) < 0.9995:
                    assert torch.allclose(tensor.double().flatten(), expected, atol=1e-5)
            distances = [sum(float((child[n] - parent[n]).norm()) for n in child) for parent in (one, other)]
            assert distances[0] < distances[1]


def explored(records: list[Record]) -> dict[int, tuple[str, str]]:
    return {r.generation: (r.parents[0], r.parents[1]) for r in records if r.role == "exploration"}


@pytest.mark.parametrize("metric", ["pcc", "euclidean"])
def test_the_best_meets_its_least_related_partner(scene: Scene, metric: str) -> None:
    config = scene.config(strategy={"variant": "kinship", "metric": metric, "partner_pool": "all"})
    scene.run("run", config)
    base = flat(scene.base)
    with Search(config, scene.folder / "run", evaluator=scene.evaluator()) as search:
        records = search.records
        vectors = {
            r.id: torch.cat([tensor.flatten().double() for tensor in weights(search, r.id).values()]) - base
            for r in records
        }
    assert len(explored(records)) == 2
    for generation, (best, partner) in explored(records).items():
        earlier = [r for r in records if r.id != "base" and r.generation < generation]
        assert [best] == best_ids(earlier)
        taken = {
            frozenset(r.parents)
            for r in records
            if r.generation < generation or (r.generation == generation and r.role == "greedy")
        }
        free = [r.id for r in earlier if r.id != best and frozenset((best, r.id)) not in taken]
        if metric == "pcc":
            expected = min(free, key=lambda id: np.corrcoef(vectors[best], vectors[id])[0, 1])
        else:
            expected = max(free, key=lambda id: float((vectors[best] - vectors[id]).norm()))
        assert len(free) > 1
        assert partner == expected


def test_held_out_documents_wait_until_the_search_is_over(scene: Scene) -> None:
    evaluator = scene.evaluator()
    scene.run("run", evaluator=evaluator)
    kinds = [tuple(documents) for _, documents in evaluator.calls]
    first = kinds.index(tuple(HELD_OUT))
    assert set(kinds[:first]) == {tuple(SEARCH)}
    assert set(kinds[first:]) == {tuple(HELD_OUT)}
    records = scene.records("run")
    best = best_offspring(records)
    assert best is not None
    asked = {id for id, documents in evaluator.calls[first:]}
    leaders = {best.id, *best_so_far(records)}
    parents = {parent for record in records if record.id in leaders for parent in record.parents}
    assert asked == {"base", "near", "kin", "far"} | leaders | parents


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_chosen_by_held_out_scores(scene: Scene, variant: str) -> None:
    config = scene.config(strategy={"variant": variant})
    scene.run("plain", config)
    scene.run("contrary", config, scene.evaluator(contrary=True))
    plain, contrary = scene.export("plain"), scene.export("contrary")
    assert plain["gain_over_best_founder"]["held_out"] != contrary["gain_over_best_founder"]["held_out"]
    for export in (plain, contrary):
        del export["verdict"], export["gain_over_best_founder"]["held_out"]
        for row in export["comparisons"]:
            del row["splits"]["held_out"]
        for individual in export["individuals"]:
            individual["scores"].pop("held_out", None)
    assert plain == contrary


def test_events_tell_only_what_is_durable(scene: Scene) -> None:
    seen = []

    def observer(name: str, facts: Mapping[str, Any]) -> None:
        ledger = Ledger(scene.folder / "run" / LEDGER_NAME)
        by_id = {record.id: record for record in ledger.records()}
        stopped = ledger.stopped()
        ledger.close()
        seen.append(name)
        if name == "scored":
            score = by_id[facts["individual"]].scores[facts["split"]]
            assert facts["value"] == score.value
        if name == "failed":
            assert by_id[facts["individual"]].error == facts["error"]
        if name == "stopped":
            assert stopped == facts["reason"]

    scene.run("run", evaluator=scene.evaluator(failing("1-1")), observer=observer)
    assert seen.count("scored") == len([1 for r in scene.records("run") for _ in r.scores])
    assert seen.count("failed") == 1
    assert seen[-1] == "stopped"


def test_best_so_far_are_the_leaders_in_order(scene: Scene) -> None:
    scene.run("run")
    records = scene.records("run")
    leaders = best_so_far(records)
    by_id = {record.id: record for record in records}
    fitness = [by_id[id].fitness or 0.0 for id in leaders]
    assert leaders[:1] == best_ids([by_id[id] for id in scene.founders])
    assert leaders[-1:] == best_ids(records)
    assert fitness == sorted(fitness)
    assert "base" not in leaders


# Stopping


def test_it_stops_after_so_many_generations(scene: Scene) -> None:
    assert scene.run("run", scene.config(stop={"generations": 1})) == "reached 1 generations"
    assert [record.id for record in offspring(scene.records("run"))] == ["1-1", "1-2", "1-3"]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
def test_it_stops_after_so_many_evaluations(scene: Scene, most: int) -> None:
    scene.run("long")
    assert scene.run("run", scene.config(stop={"evaluations": most})) == f"reached {most} evaluations"
    found = offspring(scene.records("run"))
    assert len(found) == most
    assert descents(found) == descents(offspring(scene.records("long")))[:most]


def test_failures_count_as_evaluations(scene: Scene) -> None:
    scene.run("run", scene.config(stop={"evaluations": 4}), scene.evaluator(failing("1-1")))
    assert [record.id for record in offspring(scene.records("run"))] == ["1-1", "1-2", "1-3", "2-1"]


def test_it_stops_when_the_best_are_too_alike(scene: Scene) -> None:
    assert "past 0.9" in scene.run("run", scene.config(stop={"kinship_above": 0.9, "generations": 9}))
    with Search(scene.config(stop={"kinship_above": 0.9, "generations": 9}), scene.folder / "run",
                evaluator=scene.evaluator()) as search:  # fmt: skip
        matrix = search.kinship()
        last = max(record.generation for record in search.records)
        for generation in range(1, last + 1):
            top = best_ids([record for record in search.records if record.generation <= generation], 3)
            assert (matrix.mean(top) > 0.9) is (generation == last)
        assert last < 9


def test_it_stops_when_the_best_stay_the_same(scene: Scene) -> None:
    config = scene.config(stop={"generations": 30}, strategy={"variant": "vanilla"})
    assert scene.run("run", config, scene.evaluator(sign=-1.0)) == "the top 3 stayed the same"
    records = scene.records("run")
    last = max(record.generation for record in records)
    tops = [
        set(best_ids([record for record in records if record.generation <= generation], 3))
        for generation in range(last + 1)
    ]
    assert tops[-1] == tops[-2]
    assert all(one != other for one, other in pairwise(tops[:-1]))


# Failures


def test_a_candidate_that_fails_costs_only_itself(scene: Scene) -> None:
    scene.run("run", evaluator=scene.evaluator(failing("1-2", "2-1")))
    records = {record.id: record for record in scene.records("run")}
    for id in ("1-2", "2-1"):
        assert records[id].error == f"{id} gives NaN."
        assert records[id].scores == {}
    assert not {"1-2", "2-1"} & {parent for record in records.values() for parent in record.parents}
    assert max(record.generation for record in records.values()) == 3
    pairs = [frozenset(record.parents) for record in records.values() if record.parents]
    assert len(pairs) == len(set(pairs))
    export = {individual["id"]: individual for individual in scene.export("run")["individuals"]}
    assert export["1-2"]["error"] == "1-2 gives NaN."
    assert export["1-2"]["merge_gain"] is None


def test_weights_that_overflow_fail_their_candidate_alone(scene: Scene) -> None:
    config = scene.config(
        merge={"method": "task_arithmetic", "parameters": {"weight": 1e20, "lambda": 1e30}}, stop={"generations": 2}
    )
    assert scene.run("run", config) == "the top 3 stayed the same"
    assert all("NaN or infinity" in str(record.error) for record in offspring(scene.records("run")))
    assert scene.export("run")["best_offspring"] is None


def test_a_founder_that_cannot_be_scored_ends_the_run(scene: Scene) -> None:
    with pytest.raises(EvaluationFailed, match="kin gives NaN"):
        scene.run("run", evaluator=scene.evaluator(failing("kin")))
    scene.run("plain")
    scene.run("run")
    assert scene.text("run") == scene.text("plain")


def test_a_failure_on_held_out_documents_does_not_undo_the_search(scene: Scene) -> None:
    scene.run("plain")
    best = scene.export("plain")["best_offspring"]
    evaluator = scene.evaluator()

    def before(id: str, number: int) -> None:
        if id == best and (id, list(SEARCH)) in evaluator.calls:
            raise EvaluationFailed(f"{id} is too large.")

    evaluator.before = before
    scene.run("run", evaluator=evaluator)
    export = scene.export("run")
    assert export["best_offspring"] == best
    assert list(export["gain_over_best_founder"]) == ["search"]
    text = scene.text("run")
    scene.run("run")
    assert scene.text("run") == text


# Unusual founders


def test_a_founder_equal_to_the_base_has_no_kinship_and_is_never_explored(scene: Scene, tmp_path: Path) -> None:
    still = shutil.copytree(scene.base, tmp_path / "still")
    odd = replace(scene, founders=scene.founders | {"still": still})
    odd.run("run", odd.config(strategy={"variant": "kinship", "partner_pool": "all"}, stop={"generations": 4}))
    records = odd.records("run")
    for record in offspring(records):
        assert (record.kinship is None) is ("still" in record.parents)
    assert explored(records)
    assert "still" not in {parent for pair in explored(records).values() for parent in pair}
    assert '"kinship_of_parents": null' in odd.text("run")


def test_two_names_for_the_same_weights(scene: Scene, tmp_path: Path) -> None:
    twin = shutil.copytree(scene.founders["far"], tmp_path / "twin")
    twins = replace(scene, founders=scene.founders | {"twin": twin})
    evaluator = twins.evaluator()
    cache = ScoreCache(tmp_path / "scores.sqlite")
    twins.run("run", evaluator=evaluator, cache=cache)
    records = {record.id: record for record in twins.records("run")}
    assert records["twin"].fitness == records["far"].fitness
    assert records["twin"].identity == records["far"].identity
    assert "twin" not in {id for id, _ in evaluator.calls}  # scored once, under the other name
    child = next(r for r in records.values() if set(r.parents) == {"far", "twin"})
    assert child.kinship == pytest.approx(1.0)
