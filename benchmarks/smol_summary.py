"""What the evidence of several smol families says together: tables in Markdown."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

MARKS = (10, 20, 40)
REFERENCE = "vanilla"
AGAINST = (REFERENCE, "auto")  # with whose winners others are paired
NAMES = {"vanilla": "`topk`, vanilla", "auto": "**`auto`**", "kinship": "`topk`, kinship",
         "random partner": "`topk`, random partner", "niches": "`niches`", "random points": "`random`",
         "swarm": "`swarm`", "optuna": "`optuna`, tpe"}  # fmt: skip


def at(run: Mapping[str, Any], evaluations: int) -> float:
    """Held-out score of who led after so many evaluations; who stopped early keeps what it has."""
    return float(run["course"][min(evaluations, len(run["course"])) - 1][1])


def best_founder(run: Mapping[str, Any]) -> str:
    """The best on the search split."""
    return max((id for id in run["founders"] if id != "base"), key=lambda id: run["founders"][id][0])


def reached(run: Mapping[str, Any], score: float) -> int | None:
    """After how many evaluations the leader's held-out score was first as high."""
    return next((n for n, (_, held_out) in enumerate(run["course"], 1) if held_out >= score), None)


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over families and half of its 95 % t interval, nan for a single family."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else math.nan
    return {"mean": statistics.fmean(values), "half": half}


def summarise(families: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By strategy: points over the best founder, held out, at `MARKS`, over 40 (area), gap, and less `REFERENCE`."""
    rows: dict[str, Any] = {}
    for name in dict.fromkeys(name for family in families for name in family["runs"]):
        mine = [family for family in families if name in family["runs"]]
        runs = [family["runs"][name] for family in mine]
        starts = [run["founders"][best_founder(run)][1] for run in runs]
        against = [family["runs"][REFERENCE] for family in mine]
        last = min(run.get("budget", MARKS[-1]) for run in runs)
        rows[name] = {
            "families": len(runs),
            "at": {n: interval([100 * (at(run, n) - start) for run, start in zip(runs, starts, strict=True)])
                   for n in MARKS if n <= last},
            "area": statistics.fmean(
                100 * statistics.fmean(at(run, n) - start for n in range(1, last + 1))
                for run, start in zip(runs, starts, strict=True)
            ),
            "gap": statistics.fmean(100 * (run["course"][-1][0] - run["course"][-1][1]) for run in runs),
            "evaluations": statistics.fmean(run["evaluations"] for run in runs),
            "cpu_seconds": statistics.fmean(
                run["candidates"] * family["cpu_seconds_a_candidate"] for run, family in zip(runs, mine, strict=True)
            ),
            "less_reference": {n: interval([100 * (at(run, n) - at(other, n))
                                            for run, other in zip(runs, against, strict=True)])
                               for n in MARKS if n <= last},
            "reached_reference": {family["family"]: reached(run, at(other, MARKS[-1]))
                                  for run, other, family in zip(runs, against, mine, strict=True)},
        }  # fmt: skip
    return {
        "strategies": rows,
        "families": [_of_family(family) for family in families],
        "winners": {family["family"]: family["winners"] for family in families if "winners" in family},
    }


def _of_family(family: Mapping[str, Any]) -> dict[str, Any]:
    run = family["runs"][REFERENCE]
    best, controls = best_founder(run), family["controls"]
    last = MARKS[-1]
    return {
        "family": family["family"],
        "base": 100 * run["founders"]["base"][1],
        "best": best,
        "founder": 100 * run["founders"][best][1],
        **{name: 100 * at(found, last) for name, found in family["runs"].items()},
        "auto, 20": 100 * at(family["runs"]["auto"], 20) if "auto" in family["runs"] else math.nan,
        "random vector": 100 * at(controls["random vector"], 20) if "random vector" in controls else math.nan,
        "further": 100 * controls["further"]["scores"][1] if "further" in controls else math.nan,
        "correlations": family.get("kinship", {}).get("correlations", {}),
        "stderr": 100 * ((family["runs"].get("auto", run)["gain"] or {}).get("stderr") or math.nan),
    }


def show(summary: Mapping[str, Any]) -> None:
    """The tables of docs/strategies.md, and beneath them what its text says."""
    rows = summary["strategies"]
    _table(
        ["strategy", "families", *(f"at {n}" for n in MARKS), "area", "gap", "evaluations", "CPU s",
         *(f"less vanilla at {n}" for n in MARKS)],
        [
            [NAMES.get(name, name), str(row["families"]), *(_told(row["at"].get(n)) for n in MARKS),
             f"{row['area']:.1f}", f"{row['gap']:.1f}", f"{row['evaluations']:.0f}", f"{row['cpu_seconds']:.0f}",
             *("" if name == REFERENCE else _told(row["less_reference"].get(n), "+") for n in MARKS)]
            for name, row in summary["strategies"].items()
        ],
    )  # fmt: skip
    columns = {
        "base": "base",
        "founder": "best founder",
        "vanilla": "vanilla",
        "auto, 20": "`auto` at 20",
        "auto": "`auto`",
        "niches": "`niches`",
        "random vector": "random vector, at 20",
        "further": "trained further",
    }
    _table(
        ["family", *columns.values()],
        [
            [f"`{row['family']}`", *(_number(row.get(column, math.nan)) for column in columns)]
            for row in summary["families"]
        ],
    )
    for name, row in summary["strategies"].items():
        after = ", ".join(f"{family} {n or 'never'}" for family, n in row["reached_reference"].items())
        print(f"{name} has vanilla's final score after: {after}")
    for other in AGAINST:
        print(f"\nWinners on all held-out documents, less that of {other}:\n")
        _table(["family", *(NAMES.get(name, name) for name in rows)],
               [[f"`{family}`", *(_paired(found.get(name), other) for name in rows)]
                for family, found in summary["winners"].items()]
               + [["mean", *(_over(summary["winners"], name, other) for name in rows)]])  # fmt: skip
    for metric in dict.fromkeys(metric for row in summary["families"] for metric in row["correlations"]):
        found = [row["correlations"].get(metric, {}).get("value") for row in summary["families"]]
        known = [value for value in found if value is not None]
        over = interval(known) if known else {"mean": math.nan, "half": math.nan}
        print(f"kinship ({metric}) and gain, {len(known)} families: {over['mean']:+.2f} ± {over['half']:.2f}")
    for row in summary["families"]:
        for metric, found in row["correlations"].items():
            if "value" in found:
                low = "no interval" if found["low"] is None else f"{found['low']:+.2f} to {found['high']:+.2f}"
                pairs = found["pairs"]
                print(f"{row['family']}: kinship ({metric}) and gain: {found['value']:+.2f} ({low}, {pairs} pairs)")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    rule = ["---", *(["---:"] * (len(head) - 1))]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows]), end="\n\n")


def _paired(found: Mapping[str, Any] | None, other: str) -> str:
    """One winner less another, in points, with the standard error over documents."""
    if found is None:
        return ""
    less = found["less"][other]
    return f"{100 * less['value']:+.1f} ± {100 * less['stderr']:.1f}" if less["stderr"] else "the same"


def _over(winners: Mapping[str, Any], name: str, other: str) -> str:
    """The mean over families, with half of its interval."""
    known = [100 * found[name]["less"][other]["value"] for found in winners.values() if name in found]
    return "" if name == other or not known else _told(interval(known), "+")


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def _told(found: Mapping[str, float] | None, sign: str = "") -> str:
    if found is None:
        return ""
    half = "" if math.isnan(found["half"]) else f" ± {found['half']:.1f}"
    return f"{found['mean']:{sign}.1f}{half}"
