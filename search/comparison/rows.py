"""What is compared, row by row: for every seed the values of each cell, and what was chosen on the search split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from evaluators.scores.splits import Split
from search.comparison.arms import Arm, baselines, by_cell, controls, grid, whole
from search.comparison.plan import ComparisonPlan
from search.comparison.running import Outcomes, Tested, Values

RowKind = Literal["baseline", "control", "method"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    by_seed: values under each seed; empty where an arm failed, ``error`` says why. tuned: whether a method's parameters
    were chosen; ``chosen``: as which, by seed. nearest: of an unseen cell the specialist taken, by seed.
    """

    label: str
    kind: RowKind
    by_seed: tuple[Values, ...] = ()
    method: str = ""
    tuned: bool = False
    chosen: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    nearest: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    error: str | None = None


def rows_of(found: Outcomes) -> list[Row]:
    """Baselines, controls, and every method untuned and, where its plan says how, tuned."""
    plan = found.plan
    named = baselines(plan)
    rows = [_same(found, "base", "baseline", [named["base"]] * len(plan.seeds)), _specialists(found), _nearest(found)]
    if plan.multitask:
        rows.append(_same(found, "multitask", "baseline", [named["multitask"]] * len(plan.seeds)))
    by_seed = [controls(plan, seed) for seed in plan.seeds]
    rows += (_same(found, label, "control", [arms[label] for arms in by_seed]) for label in by_seed[0])
    for name in plan.methods:
        rows.append(_same(found, name, "method", [whole(plan, name, seed) for seed in plan.seeds], name))
        if plan.methods[name].tune:
            rows.append(_tuned(found, name))
    return rows


def mean_on(found: Tested, values: Values, seed: int, split: Split, cells: Sequence[str]) -> float:
    """The mean over ``cells`` of the mean over the documents of one split under one seed."""
    means = [np.mean([values[name][document] for document in found.splits[seed][name][split]]) for name in cells]
    return float(np.mean(means))


def _same(found: Outcomes, label: str, kind: RowKind, arms: Sequence[Arm], method: str = "") -> Row:
    outcomes = [found.arms[arm] for arm in arms]
    error = next((outcome.error for outcome in outcomes if outcome.error), None)
    values = () if error else tuple(outcome.values for outcome in outcomes)
    return Row(label, kind, values, method, error=error)


def _tuned(found: Outcomes, name: str) -> Row:
    """By seed the point of the grid that is best on the search split of the held-in cells; the first of equals."""
    plan, chosen, values = found.plan, {}, []
    for seed in plan.seeds:
        usable = [arm for arm in grid(plan, name, seed) if not found.arms[arm].error]
        if not usable:
            return Row(f"{name} (tuned)", "method", (), name, True, error="No value of its parameters could be used.")
        best = max(usable, key=lambda arm: mean_on(found.tested, found.arms[arm].values, seed, "search", plan.held_in))
        chosen[seed] = parameters_of(plan, best)
        values.append(found.arms[best].values)
    return Row(f"{name} (tuned)", "method", tuple(values), name, True, chosen)


def parameters_of(plan: ComparisonPlan, arm: Arm) -> dict[str, Any]:
    """What the plan says of an arm's parameters."""
    return dict(plan.methods[arm.method].parameters) | dict(arm.values)


def _specialists(found: Outcomes) -> Row:
    """On its own cell each specialist; on an unseen one the mean of all of them, document by document."""
    named = by_cell(found.plan)
    own = dict(_own(found))
    for name in found.plan.unseen:
        everyone = [found.arms[named[cell]].values[name] for cell in found.plan.held_in]
        own[name] = {document: float(np.mean([each[document] for each in everyone])) for document in everyone[0]}
    return Row("specialists", "baseline", (own,) * len(found.plan.seeds))


def _own(found: Outcomes) -> Values:
    """Of each held-in cell the values of its own specialist."""
    named = by_cell(found.plan)
    return {name: found.arms[named[name]].values[name] for name in found.plan.held_in}


def _nearest(found: Outcomes) -> Row:
    """The specialist of the cell itself; on an unseen one that of its `ComparisonPlan.near` cells that is best there on
    the search split.
    """
    plan, named = found.plan, by_cell(found.plan)
    rows: list[Values] = []
    nearest: dict[int, dict[str, str]] = {}
    for seed in plan.seeds:
        values = dict(_own(found))
        nearest[seed] = {}
        for name in plan.unseen:
            chosen = max(
                plan.near(name),
                key=lambda cell: mean_on(found.tested, found.arms[named[cell]].values, seed, "search", [name]),
            )
            nearest[seed][name] = chosen
            values[name] = found.arms[named[chosen]].values[name]
        rows.append(values)
    return Row("nearest specialist", "baseline", tuple(rows), nearest=nearest)
