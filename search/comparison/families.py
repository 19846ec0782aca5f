"""The same comparison over several families of models: what is alike in all of them, and how far they differ."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from evaluators.scores.intervals import LEVEL
from search.comparison.findings import Content
from search.comparison.statistics import Interval


def pooled(contents: Mapping[str, Content]) -> dict[str, Any]:
    """What several comparisons of one plan (by the name of their family) say together, as plain data.

    Scores and differences to the reference are means over families, whose intervals are Student's over them: families
    are what varies, their documents and seeds are within. A row that failed in a family is left out. Rankings are by
    the means; of each finding the verdict in each family is told.
    """
    first = next(iter(contents.values()))
    rows = [_row(label, contents) for label in _common(contents)]
    groups = list(first["rankings"])
    methods = [row for row in rows if row["kind"] == "method"]
    return {
        "families": list(contents),
        "reference": first["reference"],
        "rows": rows,
        "rankings": {
            group: [row["label"] for row in sorted(methods, key=lambda row: -row["scores"][group]["value"])]
            for group in groups
        },
        "findings": [
            {
                "finding": finding["finding"],
                "verdicts": {name: content["findings"][place]["verdict"] for name, content in contents.items()},
            }
            for place, finding in enumerate(first["findings"])
        ],
    }


def over_families(values: Sequence[float]) -> Interval:
    """Their mean, with Student's interval; without ends for one family.

    >>> over_families([1.0, 2.0, 3.0])
    Interval(value=2.0, low=-0.484137..., high=4.484137...)
    """
    from scipy.special import stdtrit

    if len(values) < 2:
        return Interval(mean(values), float("nan"), float("nan"))
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * stdev(values) / len(values) ** 0.5
    return Interval(mean(values), mean(values) - half, mean(values) + half)


def _common(contents: Mapping[str, Content]) -> list[str]:
    """Labels of the rows that every family has scores of, in the first one's order."""
    scored = [[row["label"] for row in content["rows"] if row["error"] is None] for content in contents.values()]
    return [label for label in scored[0] if all(label in labels for labels in scored)]


def _row(label: str, contents: Mapping[str, Content]) -> dict[str, Any]:
    found = {name: next(row for row in content["rows"] if row["label"] == label) for name, content in contents.items()}
    first = next(iter(found.values()))
    told: dict[str, Any] = {key: first[key] for key in ("label", "kind", "method", "tuned")}
    for key in ("scores", "versus_reference"):
        told[key] = {}
        for group in first[key]:
            values = {name: float(row[key][group]["value"]) for name, row in found.items()}
            told[key][group] = over_families(list(values.values())).to_dict() | {"by_family": values}
    return told
