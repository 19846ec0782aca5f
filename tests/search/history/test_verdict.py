"""One rule for the sentence under a run: what it says never contradicts the interval beside it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.history.verdict import WORDS, control_verdict, judgement, verdict
from tests.search.runs import Scene


def sentence(splits: dict[str, Any], *, whole: bool = False) -> str:
    rows = [
        {"individual": "2-1", "versus": "other", "splits": {"held_out": None, "search": None}},
        {"individual": "2-1", "versus": "a", "splits": splits},
    ]
    return verdict("2-1", "a", rows, whole=whole)


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_it_is_as_hard_to_be_worse_as_to_be_better(value: float, down: float, up: float) -> None:
    found = {"value": value, "low": value - down, "high": value + up, "level": 0.95, "documents": 9}
    mirrored = found | {"value": -value, "low": -found["high"], "high": -found["low"]}
    opposite = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert judgement(mirrored) == opposite[judgement(found)]
    assert (judgement(found) == "undecided") == (found["low"] <= 0 <= found["high"])
    assert f" {WORDS[judgement(found)]} the best founder, a: " in sentence({"held_out": found})


def test_without_an_interval_nothing_is_decided() -> None:
    found = {"value": 0.5, "low": None, "high": None, "level": None, "documents": 1}
    assert sentence({"held_out": found}) == (
        "On held-out documents, 2-1 is not distinguishable from the best founder, a: "
        "+0.5000 (no interval: a task has a single document)."
    )
    assert sentence({}) == "The run has no held-out comparison yet."
    assert sentence({}, whole=True) == "Nothing is held out (search_fraction: 1)."
    assert "which flatter it" in sentence({"search": found}, whole=True)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_run_is_judged_by_its_own_comparison(scene: Scene, sign: float) -> None:
    scene.run("run", evaluator=scene.evaluator(sign=sign))
    export = scene.export("run")
    (row,) = [
        row
        for row in export["comparisons"]
        if (row["individual"], row["versus"]) == (export["best_offspring"], export["best_founder"])
    ]
    assert WORDS[judgement(row["splits"]["held_out"])] in export["verdict"]
    assert f"{row['splits']['held_out']['low']:+.4f} to" in export["verdict"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.3, "2-1 is better than the same merge with a random task vector in the place of a: +0.1000"),
        (-0.1, 0.3, "so that nothing shows that what a learned did it."),
        (-0.3, -0.1, "2-1 is worse than the same merge"),
    ],
)
def test_a_control_is_judged_by_the_same_rule(low: float, high: float, said: str) -> None:
    found = {"value": 0.1, "low": low, "high": high, "level": 0.95, "documents": 9}
    control = {"of": "2-1", "founder": "a", "error": None, "splits": {"held_out": found}}
    assert said in control_verdict([control])
    assert control_verdict([]) == ""
    assert control_verdict([control | {"splits": {}}]).endswith("has no score yet.")
