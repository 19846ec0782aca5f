"""What Tam et al. found (arXiv 2409.18314), held against a comparison: agree, disagree, or cannot be told.

A rule decides each, made before any comparison was run, and says by which figures.
"""

from collections.abc import Callable, Mapping
from typing import Any

from search.comparison.arms import AVERAGE

Content = Mapping[str, Any]

AGREE, DISAGREE, OPEN = "agree", "disagree", "cannot be told"
NEAR = 0.02  # of a score: differences below it are small
HIGH = 0.8  # of Spearman's correlation: an order that is nearly the same


def findings(content: Content) -> list[dict[str, str]]:
    """One row for each of the paper's findings."""
    return [
        {"finding": finding, "verdict": verdict, "told": told}
        for finding, judge in _FINDINGS.items()
        for verdict, told in [judge(content)]
    ]


def _correlated(content: Content) -> tuple[str, str]:
    """The whole interval is above or below zero: of tuned methods, where there are some."""
    agreed = content["agreement"].get("tuned") or content["agreement"].get("untuned")
    if not agreed or agreed["low"] is None:
        return OPEN, "There are too few methods, or no unseen cells."
    told = "; ".join(f"{arms}: {_spearman(each)}" for arms, each in content["agreement"].items()).capitalize() + "."
    return (AGREE if agreed["low"] > 0 else DISAGREE if agreed["high"] < 0 else OPEN), told


def _reordered(content: Content) -> tuple[str, str]:
    """The upper end is below `HIGH`, or the lower end above it."""
    agreed = content["agreement"].get("tuned") or content["agreement"].get("untuned")
    if not agreed or agreed["low"] is None:
        return OPEN, "There are too few methods, or no unseen cells."
    first = {group: ranking[0] for group, ranking in content["rankings"].items()}
    told = f"First held in: {first['held_in']}; unseen: {first['unseen']}. {_spearman(agreed)}."
    return (AGREE if agreed["high"] < HIGH else DISAGREE if agreed["low"] > HIGH else OPEN), told


def _spearman(agreed: Content) -> str:
    if agreed["low"] is None:
        return f"Spearman {agreed['value']:+.2f}"
    return f"Spearman {agreed['value']:+.2f} ({agreed['low']:+.2f} to {agreed['high']:+.2f})"


def _number(group: str, sign: int) -> Callable[[Content], tuple[str, str]]:
    def judge(content: Content) -> tuple[str, str]:
        """All models against two, for each method; beyond two standard errors of both."""
        verdicts, told = [], []
        for method in dict.fromkeys(row["method"] for row in content["number"]):
            by = {row["models"]: row["scores"].get(group) for row in content["number"] if row["method"] == method}
            if len(by) < 3 or not by.get(2) or by[max(by)] is None:
                continue
            change = by[max(by)]["value"] - by[2]["value"]
            error = ((by[max(by)]["stderr"] or 0.0) ** 2 + (by[2]["stderr"] or 0.0) ** 2) ** 0.5
            verdicts.append(OPEN if abs(change) <= 2 * error else AGREE if sign * change > 0 else DISAGREE)
            told.append(f"{method} {change:+.4f} ± {error:.4f} from 2 to {max(by)} models")
        verdict = verdicts[0] if len(set(verdicts)) == 1 else OPEN
        return verdict, "; ".join(told) + "." if told else "No method was tried with two models and with more there."

    return judge


def _simple(content: Content) -> tuple[str, str]:
    """The reference, an average, is within `NEAR` of the best tuned arm on unseen cells, or on held-in ones."""
    merged_by = {row["method"]: row["merge_method"] for row in content["prerequisites"]}
    if merged_by[content["reference"]] != AVERAGE or content["plan"]["methods"][content["reference"]].get("parameters"):
        return OPEN, f"The reference, {content['reference']}, is no simple average."
    group = "unseen" if "unseen" in content["rankings"] else "held_in"
    rows = {row["label"]: row for row in content["rows"] if row["kind"] == "method" and not row["error"]}
    tuned = [row for row in rows.values() if row["tuned"]]
    simple = rows.get(content["reference"])
    if not tuned or simple is None:
        return OPEN, "No arm was tuned, or the reference failed."
    best = max(tuned, key=lambda row: float(row["scores"][group]["value"]))
    if not best["versus_reference"]:
        return OPEN, "There is nothing to compare with."
    gap = best["versus_reference"][group]
    told = (
        f"{best['label']} less {content['reference']}, {group.replace('_', '-')}: "
        f"{gap['value']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})."
    )
    return (AGREE if gap["high"] < NEAR else DISAGREE if gap["low"] > NEAR else OPEN), told


def _sensitive(content: Content) -> tuple[str, str]:
    """Some method's held-in score spans more than five times as much as another's."""
    spans: dict[str, float] = {}
    for row in content["sensitivity"]:
        spans[row["method"]] = max(spans.get(row["method"], 0.0), row["spread"]["held_in"])
    if len(spans) < 2:
        return OPEN, "Fewer than two methods were tried at several values."
    most, least = max(spans, key=lambda name: spans[name]), min(spans, key=lambda name: spans[name])
    told = f"Held-in score spans {spans[most]:.4f} with {most}, {spans[least]:.4f} with {least}."
    return (AGREE if spans[most] > 5 * spans[least] and spans[most] > NEAR else DISAGREE), told


def _costly(content: Content) -> tuple[str, str]:
    """The dearest method takes more than ten times the time of the cheapest, statistics included."""
    seconds = {
        row["method"]: sum(part["seconds"] for part in (row["merge"], row["statistics"]) if part)
        for row in content["costs"]
        if row["merge"]
    }
    if len(seconds) < 2:
        return OPEN, "Fewer than two methods were timed."
    most, least = max(seconds, key=lambda name: seconds[name]), min(seconds, key=lambda name: seconds[name])
    told = f"{most} takes {seconds[most]:.2f} s, {least} {seconds[least]:.2f} s."
    return (AGREE if seconds[most] > 10 * seconds[least] else DISAGREE), told


_FINDINGS: dict[str, Callable[[Content], tuple[str, str]]] = {
    "Held-in and unseen scores of methods are correlated": _correlated,
    "The order of methods is another on unseen cells than on held-in ones": _reordered,
    "More models merged help on unseen cells": _number("unseen", 1),
    "More models merged hurt on held-in cells": _number("held_in", -1),
    "A simple average, untuned, comes near the best tuned method": _simple,
    "Methods differ in how far their parameters matter": _sensitive,
    "Methods differ in cost by orders of magnitude": _costly,
}
