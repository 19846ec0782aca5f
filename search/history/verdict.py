"""What a run has shown, in words, by one rule: the paired interval between its best offspring and the best founder."""

from collections.abc import Mapping, Sequence
from typing import Any

WORDS = {"better": "better than", "worse": "worse than", "undecided": "not distinguishable from"}


def judgement(difference: Mapping[str, Any]) -> str:
    """``better`` or ``worse`` where the whole interval lies on one side of zero, else ``undecided``.

    >>> judgement({"low": 0.01, "high": 0.2}), judgement({"low": -0.2, "high": 0.0})
    ('better', 'undecided')
    """
    low, high = difference["low"], difference["high"]
    if low is not None and low > 0:
        return "better"
    return "worse" if high is not None and high < 0 else "undecided"


def figures(difference: Mapping[str, Any]) -> str:
    """A difference of scores with its interval, in the metric's own unit.

    >>> figures({"value": 0.01, "low": -0.002, "high": 0.0215, "level": 0.95, "documents": 300})
    '+0.0100 (95 % interval -0.0020 to +0.0215, 300 documents)'
    """
    value = f"{difference['value']:+.4f}"
    documents = f"{difference['documents']} documents"
    if difference["low"] is None:
        return f"{value} (no interval: a task has a single document)"
    ends = f"{difference['low']:+.4f} to {difference['high']:+.4f}"
    return f"{value} ({100 * difference['level']:.0f} % interval {ends}, {documents})"


def verdict(
    offspring: str | None, founder: str | None, comparisons: Sequence[Mapping[str, Any]], *, whole: bool
) -> str:
    """Is the best offspring better than the best founder, on documents the search never saw?

    comparisons: as the export has them. whole: nothing is held out, which leaves that open, and is said.
    """
    pairs = {(row["individual"], row["versus"]): row["splits"] for row in comparisons}
    splits = pairs.get((offspring, founder), {})
    found = splits.get("search" if whole else "held_out")
    if found is None:
        return "Nothing is held out (search_fraction: 1)." if whole else "The run has no held-out comparison yet."
    if whole:
        return (
            f"Nothing was held out (search_fraction: 1): {offspring} is {figures(found)} from the best founder, "
            f"{founder}, on the documents it was chosen by, which flatter it."
        )
    words = WORDS[judgement(found)]
    return f"On held-out documents, {offspring} is {words} the best founder, {founder}: {figures(found)}."


def control_verdict(controls: Sequence[Mapping[str, Any]]) -> str:
    """Did a founder's training matter? By the same rule, of the export's ``controls``; empty where there are none."""
    return " ".join(map(_of_control, controls))


def _of_control(control: Mapping[str, Any]) -> str:
    place = f"a random task vector in the place of {control['founder']}"
    if not control["splits"]:
        return f"The control, {control['of']} with {place}, has no score" + (
            f": {control['error']}" if control["error"] else " yet."
        )
    split, found = next(iter(control["splits"].items()))
    if split == "search":
        return (
            f"{control['of']} is {figures(found)} from the same merge with {place}, on the documents it was chosen by, "
            "which flatter it."
        )
    judged = judgement(found)
    told = f"{control['of']} is {WORDS[judged]} the same merge with {place}: {figures(found)}"
    doubt = f", so that nothing shows that what {control['founder']} learned did it"
    return told + ("." if judged == "better" else f"{doubt}.")
