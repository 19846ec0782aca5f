"""Several families together: means over them, and Student's intervals."""

from typing import Any

import pytest
from scipy import stats

from search.comparison.families import over_families, pooled


def content(held_in: float, gap: float, verdict: str, *, failed: bool = False) -> dict[str, Any]:
    def row(label: str, value: float, versus: float | None) -> dict[str, Any]:
        return {
            "label": label,
            "kind": "method",
            "method": label,
            "tuned": False,
            "scores": {"held_in": {"value": value, "low": None, "high": None}},
            "versus_reference": {} if versus is None else {"held_in": {"value": versus, "low": None, "high": None}},
            "error": None,
        }

    rows = [row("linear", held_in, None), row("ties", held_in + gap, gap), row("sce", 0.1, 0.1 - held_in)]
    if failed:
        rows[2] |= {"error": "It overflows.", "scores": {}, "versus_reference": {}}
    findings = [{"finding": "More helps", "verdict": verdict, "told": ""}]
    return {"reference": "linear", "rows": rows, "rankings": {"held_in": ["linear"]}, "findings": findings}


def test_means_and_intervals_are_over_families_and_what_failed_in_one_is_left_out() -> None:
    found = pooled(
        {
            "a": content(0.5, 0.1, "agree"),
            "b": content(0.6, 0.3, "disagree"),
            "c": content(0.4, 0.2, "agree", failed=True),
        }
    )
    assert [row["label"] for row in found["rows"]] == ["linear", "ties"]
    assert found["rankings"] == {"held_in": ["ties", "linear"]}
    gap = found["rows"][1]["versus_reference"]["held_in"]
    low, high = stats.t.interval(0.95, 2, 0.2, stats.sem([0.1, 0.3, 0.2]))
    assert gap["by_family"] == {"a": 0.1, "b": 0.3, "c": 0.2}
    assert (gap["value"], gap["low"], gap["high"]) == pytest.approx((0.2, low, high))
    assert found["rows"][0]["versus_reference"] == {}
    assert found["findings"][0]["verdicts"] == {"a": "agree", "b": "disagree", "c": "agree"}


def test_one_family_tells_nothing_of_others() -> None:
    assert over_families([0.5]).to_dict() == {"value": 0.5, "low": None, "high": None}
