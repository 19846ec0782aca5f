"""The smol family's comparison: phenomena x forms, each phenomenon learnt in one form and asked in all of them."""

from pathlib import Path
from typing import Any

from search.comparison.plan import ComparisonPlan, parse_plan
from service.demo.smol.deals import AGAIN, FORMS, GRID, HELD_IN, MULTITASK, SKILLS
from service.demo.smol.family import Progress, make_smol_family
from service.demo.smol.phenomena import PREFIX

# A merge of 135M parameters takes seconds, scoring it half a minute: few values, each of which tells something.
METHODS: dict[str, Any] = {
    "linear": {"tune": {"scale": [1.0, 2.0, 4.0]}},
    "task_arithmetic": {"parameters": {"lambda": 0.4}, "tune": {"lambda": [0.4, 0.7, 1.0]}},
    "ties": {"parameters": {"density": 0.2}, "tune": {"lambda": [1.0, 2.0]}},
    "dare_linear": {"parameters": {"density": 0.5, "lambda": 0.4}},
    "karcher": {},
    "model_stock": {},
}


def smol_plan(folder: Path, progress: Progress | None = None) -> ComparisonPlan:
    """Make the family in ``folder``, or go on with it, and its plan, whose paths count from there.

    Cost: some seven CPU minutes, the first time; raises as `make_smol_family`.
    """
    family = make_smol_family(folder / "family", GRID, progress)
    models = family.references(folder)
    cells: dict[str, dict[str, str]] = {
        f"{skill}_{form}": {"task": f"{PREFIX}{skill}_{form}", "skill": skill, "domain": form}
        for skill in SKILLS
        for form in FORMS
    }
    for name in HELD_IN:
        cells[name]["model"] = models[name]
    cells[AGAIN.removesuffix("-again")]["same_data"] = models[AGAIN]
    return parse_plan(
        {
            "base": str(family.base.relative_to(folder)),
            "multitask": models[MULTITASK],
            "cells": cells,
            "evaluate": {"tasks": list(family.task_names), "task_path": "family/tasks", "batch_size": 64},
            "methods": METHODS,
            "number": {"methods": ["linear"], "orders": 2},
            "seeds": [0, 1, 2],
        }
    )
