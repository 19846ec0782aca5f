"""Tables and a figure of `search_efficiency.py`: everything is averaged within a base first, then over bases."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from efficiency_families import Pair
from scipy import stats

Runs = Mapping[str, Any]
Curve = np.ndarray[Any, np.dtype[np.float64]]


def summarise(
    work: Path, pairs: Sequence[Pair], names: Sequence[str], reference: str, marks: Sequence[int], out: Path | None
) -> None:
    """Print the tables; write ``out``.json and ``out``.svg."""
    runs = {pair: found for pair in pairs if (found := _load(work, pair))}
    names = [name for name in names if runs and all(name in found for found in runs.values())]
    if reference not in names:
        print("Nothing to summarise yet: no strategy has run on all pairs chosen.")
        return
    bases = sorted({pair.base for pair in runs})
    length = max(marks)
    curves = {name: {pair: _curve(found[name], found, length) for pair, found in runs.items()} for name in names}

    def by_base(values: Mapping[Pair, float]) -> Curve:
        return np.array([np.mean([value for pair, value in values.items() if pair.base == base]) for base in bases])

    print(f"{len(runs)} (base, seed) pairs over {len(bases)} bases; points of held-out score over the best founder,")
    print("mean over bases and 95 % interval (Student's t)")
    rows: dict[str, Any] = {}
    finals = {pair: curves[reference][pair][-1, 1] for pair in runs}
    halves = {pair: len(found[reference]["course"]) // 2 for pair, found in runs.items()}
    for name in names:
        row: dict[str, Any] = {}
        for mark in marks:
            row[f"at {mark}"] = _interval(by_base({pair: curve[mark - 1, 1] for pair, curve in curves[name].items()}))
        row["area"] = float(by_base({pair: curve[:, 1].mean() for pair, curve in curves[name].items()}).mean())
        row["gap"] = float(by_base({p: curve[-1, 0] - curve[-1, 1] for p, curve in curves[name].items()}).mean())
        row["used"] = float(by_base({pair: len(found[name]["course"]) for pair, found in runs.items()}).mean())
        reached = {pair: _first(curve[:, 1], finals[pair]) for pair, curve in curves[name].items()}
        row["reached"] = sum(value is not None for value in reached.values())
        row["evaluations to reach"] = float(np.median([value or length + 1 for value in reached.values()]))
        mean = np.mean(
            [np.mean([curves[name][p][:, 1] for p in runs if p.base == base], axis=0) for base in bases], axis=0
        )
        row["mean curve reaches"] = _first(mean, float(by_base(finals).mean()))
        row["paired"] = {
            str(mark): _paired(*(by_base({p: curves[n][p][mark - 1, 1] for p in runs}) for n in (name, reference)))
            for mark in marks
        }
        early = by_base({pair: curve[halves[pair] - 1, 1] for pair, curve in curves[name].items()})
        row["at half"] = _paired(early, by_base(finals))
        rows[name] = row
    _print(rows, marks, reference)
    if {"kinship", "random partner"} <= rows.keys():
        ends = [by_base({p: curves[name][p][-1, 1] for p in runs}) for name in ("kinship", "random partner")]
        rows["kinship against random partner"] = _paired(*ends)
        print("kinship less random partner at the end:", _said(rows["kinship against random partner"]))
    if out is not None:
        facts = {"pairs": [[pair.base, pair.seed] for pair in runs], "strategies": rows}
        out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
        _draw(curves, bases, out.with_suffix(".svg"))


def _load(work: Path, pair: Pair) -> Runs | None:
    record = work / f"runs-{pair.kind}-{pair.base}-{pair.seed}.json"
    return json.loads(record.read_text()) if record.exists() else None


def _curve(run: Mapping[str, Any], runs: Runs, length: int) -> Curve:
    """(length, 2): points over the best founder of the winner so far, search and held-out; carried forward."""
    course = np.array(run["course"])[:length]
    course = np.concatenate([course, np.repeat(course[-1:], length - len(course), axis=0)])
    founder = max(runs["founders"].values(), key=lambda scores: scores[0])
    return 100.0 * (course - np.array(founder))


def _first(curve: Curve, level: float) -> int | None:
    """The number of the first evaluation after which ``curve`` has ``level``."""
    above = np.flatnonzero(curve >= level - 1e-9)
    return int(above[0]) + 1 if len(above) else None


def _interval(values: Curve) -> dict[str, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return {"mean": float(values.mean()), "half": float(half)}


def _paired(one: Curve, other: Curve) -> dict[str, float]:
    """Difference with its interval, and the two-sided p of a paired t and of Wilcoxon's signed ranks."""
    difference = one - other
    if len(difference) < 2 or not difference.any():
        return _interval(difference) | {"t": 1.0, "wilcoxon": 1.0}
    return _interval(difference) | {
        "t": float(stats.ttest_rel(one, other).pvalue),
        "wilcoxon": float(stats.wilcoxon(one, other).pvalue),
    }


def _said(found: Mapping[str, float]) -> str:
    return f"{found['mean']:+.2f} ± {found['half']:.2f} (t {found['t']:.3f}, Wilcoxon {found['wilcoxon']:.3f})"


def _print(rows: Mapping[str, Any], marks: Sequence[int], reference: str) -> None:
    head = "".join(f"{f'at {mark}':>15}" for mark in marks)
    print(f"{'strategy':28}{head}{'area':>7}{'gap':>6}{'used':>6}{'reaches':>9}{'median':>8}{'mean curve':>12}")
    for name, row in rows.items():
        cells = "".join(f"{row[f'at {m}']['mean']:9.2f} ±{row[f'at {m}']['half']:4.1f}" for m in marks)
        mean = row["mean curve reaches"] or "never"
        print(f"{name:28}{cells}{row['area']:7.2f}{row['gap']:6.2f}{row['used']:6.0f}{row['reached']:9d}"
              f"{row['evaluations to reach']:8.0f}{mean!s:>12}")  # fmt: skip
    print(
        "\ngap: what the search score promises beyond the held-out score, at the end. reaches: pairs on which the\n"
        f"final score of {reference} is reached, median evaluations until then, and until the mean curve has "
        f"its mean.\n\nless {reference}, paired by base; at half: after half of its evaluations, less its final score:"
    )
    for name, row in rows.items():
        if name != reference:
            later = "   ".join(f"at {mark}: {_said(row['paired'][str(mark)])}" for mark in marks[2:])
            print(f"{name:28}at half: {_said(row['at half'])}   {later}")


def _draw(curves: Mapping[str, Mapping[Pair, Curve]], bases: Sequence[int], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "search-efficiency"
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, found in curves.items():
        means = [np.mean([curve[:, 1] for p, curve in found.items() if p.base == base], axis=0) for base in bases]
        axes.plot(
            np.arange(1, len(means[0]) + 1), np.mean(means, axis=0), label=name, linewidth=2 if name == "auto" else 1.2
        )
    axes.set(xlabel="evaluations", ylabel="held-out points over the best founder")
    axes.legend(fontsize=7, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
