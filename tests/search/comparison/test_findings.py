"""Verdicts follow from figures by the rules, both ways and in between."""

from typing import Any

import pytest

from search.comparison.findings import findings


def judged(finding: str, **changes: Any) -> str:
    """The verdict of the finding that begins so."""
    content: dict[str, Any] = {
        "agreement": {}, "rankings": {"held_in": ["a"], "unseen": ["b"]}, "number": [], "rows": [], "sensitivity": [],
        "costs": [], "reference": "a", "prerequisites": [{"method": "a", "merge_method": "linear"}],
        "plan": {"methods": {"a": {"tune": {"scale": [1.5]}}}},
    }  # fmt: skip
    return next(row["verdict"] for row in findings(content | changes) if row["finding"].startswith(finding))


def between(low: float | None, high: float | None) -> dict[str, Any]:
    return {"tuned": {"value": 0.5, "low": low, "high": high, "methods": 5}}


@pytest.mark.parametrize(
    ("low", "high", "correlated", "reordered"),
    [
        (0.1, 0.7, "agree", "agree"),
        (0.85, 0.99, "agree", "disagree"),
        (-0.2, 0.9, "cannot be told", "cannot be told"),
        (-0.9, -0.1, "disagree", "agree"),
        (None, None, "cannot be told", "cannot be told"),
    ],
)
def test_correlation_and_order(low: float | None, high: float | None, correlated: str, reordered: str) -> None:
    assert judged("Held-in and unseen", agreement=between(low, high)) == correlated
    assert judged("The order", agreement=between(low, high)) == reordered


def numbers(method: str, held_in: float, unseen: float, stderr: float = 0.01) -> list[dict[str, Any]]:
    """Scores of 0.5 with one and two models, then these with four."""
    return [
        {
            "method": method,
            "models": count,
            "scores": {
                group: {"value": 0.5 if count < 4 else last, "stderr": stderr}
                for group, last in (("held_in", held_in), ("unseen", unseen))
            },
        }
        for count in (1, 2, 4)
    ]


def test_the_number_of_models() -> None:
    assert judged("More models merged help", number=numbers("a", 0.4, 0.6)) == "agree"
    assert judged("More models merged hurt", number=numbers("a", 0.4, 0.6)) == "agree"
    assert judged("More models merged hurt", number=numbers("a", 0.6, 0.6)) == "disagree"
    assert judged("More models merged help", number=numbers("a", 0.4, 0.6, stderr=0.2)) == "cannot be told"
    mixed = numbers("a", 0.4, 0.6) + numbers("b", 0.4, 0.4)
    assert judged("More models merged help", number=mixed) == "cannot be told"


def row(label: str, tuned: bool, gap: tuple[float, float, float] | None = None) -> dict[str, Any]:
    versus = {"unseen": dict(zip(("value", "low", "high"), gap, strict=True))} if gap else {}
    score = {"value": 0.5 + (gap[0] if gap else 0.0)}
    return {
        "label": label, "kind": "method", "tuned": tuned, "error": None, "scores": {"unseen": score},
        "versus_reference": versus,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [((0.0, -0.01, 0.01), "agree"), ((0.1, 0.05, 0.2), "disagree"), ((0.03, -0.01, 0.08), "cannot be told")],
)
def test_the_simple_average(gap: tuple[float, float, float], verdict: str) -> None:
    assert judged("A simple average", rows=[row("a", False), row("b (tuned)", True, gap)]) == verdict


def test_what_is_no_average_is_not_called_one() -> None:
    rows = [row("a", False), row("b (tuned)", True, (0.0, -0.01, 0.01))]
    ties = [{"method": "a", "merge_method": "ties"}]
    assert judged("A simple average", rows=rows, prerequisites=ties) == "cannot be told"
    stretched = {"methods": {"a": {"parameters": {"scale": 2.0}}}}
    assert judged("A simple average", rows=rows, plan=stretched) == "cannot be told"


def test_sensitivity_and_cost() -> None:
    def spans(*values: float) -> list[dict[str, Any]]:
        return [{"method": str(place), "spread": {"held_in": value}} for place, value in enumerate(values)]

    def costs(*seconds: float) -> list[dict[str, Any]]:
        return [
            {"method": str(place), "merge": {"seconds": value}, "statistics": None}
            for place, value in enumerate(seconds)
        ]

    assert judged("Methods differ in how far", sensitivity=spans(0.3, 0.01)) == "agree"
    assert judged("Methods differ in how far", sensitivity=spans(0.03, 0.01)) == "disagree"
    assert judged("Methods differ in how far", sensitivity=spans(0.3)) == "cannot be told"
    assert judged("Methods differ in cost", costs=costs(0.1, 2.0)) == "agree"
    assert judged("Methods differ in cost", costs=costs(0.1, 0.5)) == "disagree"
