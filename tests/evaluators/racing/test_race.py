import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from scipy.stats import norm

from evaluators.racing.race import Race, RaceSettings, _boundaries
from evaluators.racing.reduced import pick
from evaluators.scores.score import Results
from kinship.errors import InvalidConfig
from tests.evaluators.racing_data import TASKS, make_results, part, true_score

FOUNDERS = {"f1": -0.4, "f2": 0.0, "f3": 0.2, "f4": 0.4}
BATCH = {"poor": -2.0, "good": 1.5, "fair": 0.4}
ON = RaceSettings(enabled=True)
SIZE = sum(len(documents) for documents in TASKS.values())


def make_race(results: Mapping[str, Results], batch: Sequence[str] = tuple(BATCH), k: int = 2, seed: int = 0) -> Race:
    return Race(ON, TASKS, {id: results[id] for id in FOUNDERS}, batch, k, seed)


def finish(race: Race, results: Mapping[str, Results]) -> dict[str, int]:
    """Run to the end; documents asked for by candidate."""
    counts: dict[str, int] = {}
    while asked := race.ask():
        for id, block in asked.items():
            counts[id] = counts.get(id, 0) + sum(map(len, block.values()))
        race.tell({id: part(results[id], block) for id, block in asked.items()})
    return counts


@pytest.fixture(scope="module")
def results() -> dict[str, Results]:
    return make_results(FOUNDERS | BATCH, 0)


def test_it_is_off_unless_asked_for() -> None:
    assert not RaceSettings().enabled
    with pytest.raises(InvalidConfig):
        RaceSettings(error_rate=0.0)
    misspelt: Any = {"eror_rate": 0.1}
    with pytest.raises(InvalidConfig):
        RaceSettings(**misspelt)


def test_blocks_take_every_document_once_and_a_share_of_each_task(results: Mapping[str, Results]) -> None:
    race = make_race(results, ["good"])
    seen: dict[str, list[int]] = {task: [] for task in TASKS}
    while asked := race.ask():
        assert race.ask() == asked
        for task, documents in asked["good"].items():
            seen[task] += documents
            assert len(documents) == pytest.approx(len(TASKS[task]) / 10, abs=1)
        race.tell({"good": part(results["good"], asked["good"])})
    assert {task: sorted(documents) for task, documents in seen.items()} == {t: list(TASKS[t]) for t in TASKS}


@pytest.mark.parametrize("binary", [True, False])
def test_the_poor_are_stopped_early_and_the_good_run_to_the_end(binary: bool) -> None:
    results = make_results(FOUNDERS | BATCH, 1, binary=binary)
    race = make_race(results)
    counts = finish(race, results)
    assert counts["good"] == SIZE
    assert counts["poor"] <= SIZE * 0.4
    assert "good" not in race.stopped()
    verdict = race.stopped()["poor"]
    assert verdict.documents == counts["poor"]
    assert verdict.statistic >= verdict.boundary > norm.isf(ON.error_rate)
    assert verdict.rival in {*FOUNDERS, "good", "fair"}
    assert abs(verdict.estimate.value - true_score(results["poor"])) < 3 * verdict.estimate.stderr
    # It was stopped for k = 2 rivals that are truly better.
    assert sorted(map(true_score, results.values()))[-2] > true_score(results["poor"])


def test_decisions_depend_on_nothing_but_settings_seed_and_results(results: Mapping[str, Results]) -> None:
    race, turned = (
        make_race(results),
        Race(ON, TASKS, {id: results[id] for id in reversed(FOUNDERS)}, list(BATCH), 2, 0),
    )
    while asked := race.ask():
        assert turned.ask() == asked
        answers = {id: part(results[id], block) for id, block in asked.items()}
        race.tell(answers)
        turned.tell(dict(reversed(answers.items())))
    assert race.stopped() == turned.stopped()
    assert race.stopped()


def test_a_killed_race_is_replayed(results: Mapping[str, Results]) -> None:
    race = make_race(results)
    told = []
    for _ in range(3):
        told.append({id: part(results[id], block) for id, block in race.ask().items()})
        race.tell(told[-1])
    again = make_race(results)
    for answers in told:
        again.tell(answers)
    assert again.ask() == race.ask()
    assert again.stopped() == race.stopped()


def test_a_dear_task_is_seen_later_and_every_block_costs_its_share(results: Mapping[str, Results]) -> None:
    prices = {"large": 1.0, "small": 9.0}
    total = sum(len(documents) * prices[task] for task, documents in TASKS.items())
    race = Race(ON, TASKS, {id: results[id] for id in FOUNDERS}, ["good"], 2, 0, prices=prices)
    seen: dict[str, list[int]] = {task: [] for task in TASKS}
    while asked := race.ask():
        for task, documents in asked["good"].items():
            seen[task] += documents
        large, small = (len(seen[task]) / len(TASKS[task]) for task in TASKS)
        assert large == pytest.approx(min(3 * small, 1.0), abs=0.06)  # by the root of the price
        cost = sum(len(documents) * prices[task] for task, documents in asked["good"].items())
        assert cost / total == pytest.approx(0.1, abs=0.02)
        race.tell({"good": part(results["good"], asked["good"])})
    assert {task: sorted(documents) for task, documents in seen.items()} == {t: list(TASKS[t]) for t in TASKS}


@pytest.mark.parametrize("settings", [ON, RaceSettings(enabled=True, reduced=0.2)])
def test_equal_prices_and_picked_documents_leave_a_race_as_it_is(
    results: Mapping[str, Results], settings: RaceSettings
) -> None:
    known = {id: results[id] for id in FOUNDERS}
    prices = {"large": 3.0, "small": 3.0 if settings is ON else 30.0}
    plain, priced = (Race(settings, TASKS, known, list(BATCH), 2, 0, prices=given) for given in (None, prices))
    while asked := plain.ask():
        assert priced.ask() == asked
        for race in (plain, priced):
            race.tell({id: part(results[id], block) for id, block in asked.items()})
    assert priced.stopped() == plain.stopped()


def test_each_batch_and_seed_has_an_order_of_its_own(results: Mapping[str, Results]) -> None:
    first = {
        json_like(make_race(results, batch, seed=seed).ask()[batch[0]])
        for batch, seed in ((["good"], 0), (["good"], 1), (["good", "poor"], 0))
    }
    assert len(first) == 3


def json_like(block: Mapping[str, Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(documents) for documents in block.values())


def test_a_failed_candidate_leaves_and_the_rest_go_on(results: Mapping[str, Results]) -> None:
    race = make_race(results)
    asked = race.ask()
    race.tell({id: None if id == "good" else part(results[id], block) for id, block in asked.items()})
    assert "good" not in race.ask()
    counts = finish(race, results)
    assert "fair" in counts
    assert "good" not in race.stopped()
    race = make_race(results, ["good"])
    race.tell({"good": None})
    assert race.ask() == {}


def test_nobody_is_stopped_while_there_are_fewer_than_k_rivals(results: Mapping[str, Results]) -> None:
    race = make_race(results, k=len(FOUNDERS) + len(BATCH))
    assert finish(race, results) == dict.fromkeys(BATCH, SIZE)
    assert not race.stopped()


def test_controls_help_but_are_no_rivals(results: Mapping[str, Results]) -> None:
    rivals = {"f1": results["f1"]}
    controls = {id: results[id] for id in ("f2", "f3", "f4", "good", "fair")}
    race = Race(ON, TASKS, rivals, ["poor"], 2, 0, controls=controls)
    assert finish(race, results) == {"poor": SIZE}  # one rival, k = 2
    race = Race(ON, TASKS, rivals, ["poor"], 1, 0, controls=controls)
    assert finish(race, results)["poor"] < SIZE
    assert race.stopped()["poor"].rival == "f1"


def tied_races(count: int, error_rate: float, k: int = 2, prices: Mapping[str, float] | None = None) -> float:
    """How often a candidate is stopped that truly ties with the k-th best of the known models: the least favourable."""
    settings = RaceSettings(enabled=True, error_rate=error_rate)
    stopped = 0
    for seed in range(count):
        results = _tied(k, seed)
        race = Race(settings, TASKS, {id: results[id] for id in FOUNDERS}, ["new"], k, seed, prices=prices)
        finish(race, results)
        stopped += bool(race.stopped())
    return stopped / count


def _tied(k: int, seed: int) -> dict[str, Results]:
    """Results of the founders, and of the model of least ability that reaches the k-th best of them.

    Draw for draw the same, a model's results grow with its ability.
    """
    low, high = -5.0, 5.0
    for _ in range(20):
        middle = (low + high) / 2
        results = make_results(FOUNDERS | {"new": middle}, seed)
        target = sorted(true_score(results[id]) for id in FOUNDERS)[-k]
        low, high = (low, middle) if true_score(results["new"]) >= target - 1e-9 else (middle, high)
    return make_results(FOUNDERS | {"new": high}, seed)


def test_the_error_rate_is_kept_over_repeated_looks() -> None:
    rate, count = 0.1, 40
    assert tied_races(count, rate) <= rate + 3 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.soak
@pytest.mark.parametrize("prices", [None, {"large": 1.0, "small": 9.0}, {"large": 9.0, "small": 1.0}])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_the_error_rate_is_kept_over_many_races(rate: float, prices: dict[str, float] | None) -> None:
    count = 1500
    assert tied_races(count, rate, prices=prices) <= rate + 3 * math.sqrt(rate * (1 - rate) / count)


def test_each_look_has_its_share_of_the_error_rate() -> None:
    settings = RaceSettings(enabled=True, error_rate=0.08, minimum=50)
    boundaries = _boundaries(settings, [30, 30, 60, 40, 40])
    assert math.isinf(boundaries[0])  # fewer documents than the minimum
    assert math.isinf(boundaries[-1])  # all seen: nothing to test
    assert norm.sf(boundaries) == pytest.approx([0, 0.08 * 60 / 160, 0.08 * 60 / 160, 0.08 * 40 / 160, 0])


def test_tiny_tasks_are_raced_without_a_stop_before_the_minimum() -> None:
    tasks = {"a": [3, 5, 8], "b": [0]}
    results = make_results(FOUNDERS | BATCH, 2, tasks)
    race = Race(ON, tasks, {id: results[id] for id in FOUNDERS}, list(BATCH), 1, 0)
    assert finish(race, results) == dict.fromkeys(BATCH, 4)
    assert not race.stopped()


def test_the_best_are_those_of_full_evaluation() -> None:
    for seed in range(10):
        abilities = FOUNDERS | {f"c{number}": -0.8 + 0.2 * number for number in range(10)}
        results = make_results(abilities, seed)
        batch = [id for id in abilities if id not in FOUNDERS]
        race = make_race(results, batch, k=3, seed=seed)
        counts = finish(race, results)
        best = sorted(results, key=lambda id: -true_score(results[id]))[0]
        assert best not in race.stopped()
        assert sum(counts.values()) < 0.9 * len(batch) * SIZE


def test_reduced_evaluation_picks_the_first_block(results: Mapping[str, Results]) -> None:
    founders = {id: results[id] for id in FOUNDERS}
    settings = RaceSettings(enabled=True, reduced=0.2)
    race = Race(settings, TASKS, founders, list(BATCH), 2, 3)
    picked = pick(founders, TASKS, 0.2, 3).documents
    assert {task: sorted(ids) for task, ids in race.ask()["good"].items()} == {
        task: sorted(ids) for task, ids in picked.items()
    }
    counts = finish(race, results)
    assert counts["good"] == SIZE
    assert counts["poor"] < SIZE / 2


def test_what_was_not_asked_for_is_refused(results: Mapping[str, Results]) -> None:
    race = make_race(results)
    with pytest.raises(ValueError, match="asked for"):
        race.tell({"good": results["good"]})
    with pytest.raises(KeyError):
        race.tell({id: {} for id in BATCH})
    with pytest.raises(ValueError, match="differ"):
        make_race(results, ["good", "good"])
    with pytest.raises(ValueError, match="differ"):
        make_race(results, ["f1"])
