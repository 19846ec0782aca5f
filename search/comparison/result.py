"""What a comparison says, as plain data: rows, two rankings, sensitivity, number of models, costs, prerequisites."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from kinship.arrays import Float64
from merging.registry import get_method
from search.comparison.arms import draws, prefixes, sweeps, whole
from search.comparison.cost import Cost
from search.comparison.findings import findings
from search.comparison.plan import ComparisonPlan
from search.comparison.rows import Row, mean_on, rows_of
from search.comparison.running import Outcomes
from search.comparison.statistics import Draws, Held, interval, rank_agreement

GROUPS = ("held_in", "unseen")


def told(found: Outcomes) -> dict[str, Any]:
    """All that is told of what was found; scores are of held-out documents, but where tuning chose."""
    plan = found.plan
    groups = groups_of(plan)
    rows = rows_of(found)
    estimates = _Estimates(found, rows, groups)
    facts = [estimates.told(row) for row in rows]
    scored = [row for row in facts if row["kind"] == "method" and row["error"] is None]
    content: dict[str, Any] = {
        "plan": plan.model_dump(mode="json", exclude_defaults=True),
        "cells": {name: _cell(found, name) for name in plan.cells},
        "seeds": plan.seeds,
        "conditions": dict(found.tested.conditions),
        "reference": plan.reference_method,
        "rows": facts,
        "rankings": {
            group: [row["label"] for row in sorted(scored, key=lambda row: -row["scores"][group]["value"])]
            for group in groups
        },
        "agreement": estimates.agreement([row for row in rows if row.kind == "method" and not row.error]),
        "sensitivity": _sensitivity(found),
        "number": _number(found),
        "costs": [_cost(found, name) for name in plan.methods],
        "evaluation": _evaluation(found),
        "prerequisites": [_prerequisites(plan, name) for name in plan.methods],
    }
    return content | {"findings": findings(content)}


def groups_of(plan: ComparisonPlan) -> dict[str, list[str]]:
    """The cells of each group that has some."""
    return {group: cells for group, cells in zip(GROUPS, (plan.held_in, plan.unseen), strict=True) if cells}


class _Estimates:
    """Means with intervals, and differences to the reference, all under the same draws."""

    def __init__(self, found: Outcomes, rows: list[Row], groups: Mapping[str, list[str]]) -> None:
        self._groups = groups
        splits = found.tested.splits.values()
        self._held = {name: Held.of([cells[name]["held_out"] for cells in splits]) for name in found.plan.cells}
        self._draws = Draws(self._held)
        self._values: dict[str, dict[str, Float64]] = {
            row.label: {
                name: held.values([values[name] for values in row.by_seed]) for name, held in self._held.items()
            }
            for row in rows
            if not row.error
        }
        self._drawn = {
            (label, group): self._draws.drawn(values, cells)
            for label, values in self._values.items()
            for group, cells in groups.items()
        }
        self._reference = found.plan.reference_method

    def _mean(self, label: str, cells: list[str]) -> float:
        return self._draws.mean(self._values[label], cells)

    def told(self, row: Row) -> dict[str, Any]:
        scores, versus, cells = {}, {}, {}
        if not row.error:
            for group, names in self._groups.items():
                value, drawn = self._mean(row.label, names), self._drawn[row.label, group]
                scores[group] = interval(value, drawn).to_dict()
                if self._reference in self._values and row.label != self._reference:
                    other = self._mean(self._reference, names), self._drawn[self._reference, group]
                    versus[group] = interval(value - other[0], drawn - other[1]).to_dict()
            cells = {name: self._mean(row.label, [name]) for name in self._held}
        return {
            "label": row.label,
            "kind": row.kind,
            "method": row.method or None,
            "tuned": row.tuned,
            "scores": scores,
            "versus_reference": versus,
            "cells": cells,
            "chosen": {str(seed): values for seed, values in row.chosen.items()},
            "nearest": {str(seed): cells for seed, cells in row.nearest.items()},
            "error": row.error,
        }

    def agreement(self, rows: list[Row]) -> dict[str, Any]:
        """Spearman's correlation of held-in and unseen scores over methods, untuned and tuned apart."""
        if len(self._groups) < 2:
            return {}
        found = {}
        for name, tuned in (("untuned", False), ("tuned", True)):
            labels = [row.label for row in rows if row.tuned == tuned]
            means = [[self._mean(label, cells) for label in labels] for cells in self._groups.values()]
            drawn = [[self._drawn[label, group] for label in labels] for group in self._groups]
            agreed = rank_agreement(means[0], means[1], (np.array(drawn[0]), np.array(drawn[1])))
            if agreed:
                found[name] = agreed.to_dict() | {"methods": len(labels)}
        return found


def _cell(found: Outcomes, name: str) -> dict[str, Any]:
    cell, seed = found.plan.cells[name], found.plan.seeds[0]
    return {
        "task": found.plan.task_of(name),
        "metric": found.tested.metrics[name],
        "held_in": cell.held_in,
        "skill": cell.skill,
        "domain": cell.domain,
        "model": cell.model,
        "documents": {split: len(ids) for split, ids in found.tested.splits[seed][name].items()},
    }


def _sensitivity(found: Outcomes) -> list[dict[str, Any]]:
    """Scores by the value of each parameter, by the first seed; a point that failed is left out."""
    plan, seed = found.plan, found.plan.seeds[0]
    groups = groups_of(plan)
    told: list[dict[str, Any]] = []
    for name in plan.methods:
        for parameter, points in sweeps(plan, name).items():
            rows: list[tuple[Any, dict[str, float]]] = [
                (
                    value,
                    {
                        group: mean_on(found.tested, found.arms[arm].values, seed, "held_out", cells)
                        for group, cells in groups.items()
                    },
                )
                for value, arm in points
                if not found.arms[arm].error
            ]
            if rows:
                spread = {group: float(np.ptp([scores[group] for _, scores in rows])) for group in groups}
                points_told = [{"value": value, "scores": scores} for value, scores in rows]
                told.append({"method": name, "parameter": parameter, "points": points_told, "spread": spread})
    return told


def _number(found: Outcomes) -> list[dict[str, Any]]:
    """Scores by the number of models merged: mean and standard error over the orders. Held in are the cells of the
    models that were merged.
    """
    plan, seed = found.plan, found.plan.seeds[0]
    by: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, _, arm in prefixes(plan):
        outcome = found.arms[arm]
        if outcome.error:
            continue
        own = [cell for cell in plan.held_in if plan.cells[cell].model in arm.models]
        for group, cells in {"held_in": own, "unseen": plan.unseen}.items():
            if cells:
                score = mean_on(found.tested, outcome.values, seed, "held_out", cells)
                by[name, len(arm.models)][group].append(score)
    return [
        {
            "method": name,
            "models": count,
            "orders": len(next(iter(scores.values()))),
            "scores": {
                group: {
                    "value": mean(values),
                    "stderr": stdev(values) / len(values) ** 0.5 if len(values) > 1 else None,
                }
                for group, values in scores.items()
            },
        }
        for (name, count), scores in by.items()
    ]


def _cost(found: Outcomes, name: str) -> dict[str, Any]:
    """Of one merge of all specialists, untuned, measured from nothing: the median over seeds."""
    plan = found.plan
    dones = [found.arms[whole(plan, name, seed)].done for seed in plan.seeds]
    merges = [done.merge for done in dones if done and done.merge]
    statistics = [done.statistics for done in dones if done and done.statistics]
    return {"method": name, "merge": _typical(merges), "statistics": _typical(statistics)}


def _evaluation(found: Outcomes) -> dict[str, Any] | None:
    """Of scoring one model, from all that were scored whole: it is the same for every merge of one architecture."""
    dones = [outcome.done for outcome in found.arms.values() if outcome.done and outcome.done.evaluation]
    costs = [done.evaluation for done in dones if done.evaluation]
    typical = _typical([cost for cost in costs if cost.flops is None] or costs)  # counting takes time
    counted = max((cost.flops for cost in costs if cost.flops), default=None)
    return typical and typical | {"documents": max(done.documents for done in dones), "flops": counted}


def _typical(costs: list[Cost]) -> dict[str, Any] | None:
    if not costs:
        return None
    memory = [cost.memory for cost in costs if cost.memory is not None]
    flops = [cost.flops for cost in costs if cost.flops is not None]
    return {
        "seconds": median(cost.seconds for cost in costs),
        "memory": max(memory, default=None),
        "flops": max(flops, default=None),
    }


def _prerequisites(plan: ComparisonPlan, name: str) -> dict[str, Any]:
    """What a method asks for beside the models."""
    method = get_method(plan.method_of(name))
    scaled = "scale" in {*plan.methods[name].parameters, *plan.methods[name].tune}
    return {
        "method": name,
        "merge_method": method.name,
        "taxon": method.taxon,
        "base": scaled or method.base in {"needed", "merged"},
        "statistics": method.measures if method.has_statistics else None,
        "data": bool(method.measures),
        "tuning": list(plan.methods[name].tune),
        "random": draws(method),
    }
