"""The demo's comparison: a family with a specialist a skill, and chains of two skills that nobody has practised."""

import json
import random
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from kinship.output import output_file, output_folder
from search.comparison.plan import ComparisonPlan, parse_plan
from service.demo.family import FamilySettings, Progress, Specialist, make_family
from service.demo.skills import exercises, write_tasks

SKILLS = ("sort", "max", "count", "add", "unique")
"""A specialist each: the held-in cells."""
UNSEEN = ("sort+max", "max+count", "count+add", "add+unique", "unique+sort")
"""Chains that nobody sees; each skill is once the first of a chain and once the second."""
PRACTISED = tuple(chain for chain in ("+".join(pair) for pair in permutations(SKILLS, 2)) if chain not in UNSEEN)
"""Chains that everybody sees now and then, so that it is known what a chain is."""

MADE = frozenset({"family", "tasks", "calibration"})
"""What `demo_plan` makes in a folder before anything is compared there."""

MULTITASK, AGAIN = "multitask", "sort-again"
CALIBRATION = 64  # documents on which a specialist is measured
FAMILY_SEEDS = (0, 1, 2)  # of `demo-full`

COMPARED = FamilySettings(
    skills=(*SKILLS, *PRACTISED),
    documents=160,
    steps=1200,
    specialists=(
        *(Specialist(skill, (skill,), 0.65, 100, 1e-3) for skill in SKILLS),
        Specialist(MULTITASK, SKILLS, 0.65, 250, 1e-3),
        Specialist(AGAIN, ("sort",), 0.65, 100, 1e-3),
    ),
)

_SCALES = [0.5, 1.0, 1.5, 2.0, 3.0]
_SHARES = [0.1, 0.2, 0.3, 0.4, 0.6]
_FEW: dict[str, Any] = {
    "linear": {"tune": {"scale": _SCALES}},
    "task_arithmetic": {"parameters": {"lambda": 0.3}, "tune": {"lambda": _SHARES}},
    "ties": {"parameters": {"density": 0.2}, "tune": {"lambda": _SCALES}},
    "dare_linear": {"parameters": {"density": 0.5, "lambda": 0.3}, "tune": {"lambda": _SHARES}},
    "breadcrumbs": {"parameters": {"density": 0.85, "lambda": 0.3}, "tune": {"lambda": _SHARES}},
    "consensus": {"parameters": {"lambda": 0.3}, "tune": {"lambda": _SHARES}},
    "sce": {"tune": {"select_topk": [0.1, 0.2, 0.4, 0.7, 1.0]}},
    "pcb": {"tune": {"lambda": _SCALES}},
    "tsv": {"tune": {"lambda": _SHARES}},
    "iso_c": {"tune": {"lambda": _SHARES}},
    "karcher": {},
    "model_stock": {},
    "fisher": {},
    "regmean": {"tune": {"alpha": [0.5, 0.7, 0.9, 0.95, 1.0]}},
    "mats": {"tune": {"iterations": [2, 5, 10, 20, 40]}},
}
_ELEVEN = [step / 10 for step in range(11)]
_ALL: dict[str, Any] = {
    "task_arithmetic": {"sweep": {"lambda": _ELEVEN}},
    "dare_linear": {"sweep": {"lambda": _ELEVEN, "density": [0.02, *_ELEVEN[1:]]}},
    "mats": {"sweep": {"iterations": list(range(1, 11))}},
}


NUMBERED = ["linear", "task_arithmetic", "ties"]  # of which the number of models is varied


def demo_plan(
    folder: Path, *, full: bool = False, seed: int = COMPARED.seed, progress: Progress | None = None
) -> ComparisonPlan:
    """Make what the demo's comparison needs in ``folder``, unless it is there, and its plan, whose paths count from it.

    full: more values, and ten orders of the models. seed: of the family and its documents. Cost: four CPU minutes of
    training, the first time.
    """
    family = make_family(folder / "family", replace(COMPARED, seed=seed), progress)
    _write(folder / "tasks", folder / "calibration", seed)
    held_in = {
        skill: {
            "task": f"demo_{skill}",
            "model": f"family/{skill}",
            "data": f"calibration/{skill}.jsonl",
            **({"same_data": f"family/{AGAIN}"} if skill in AGAIN else {}),
        }
        for skill in SKILLS
    }
    unseen = {name: {"task": f"demo_{name}"} for name in UNSEEN}
    methods = {name: settings | (_ALL.get(name, {}) if full else {}) for name, settings in _FEW.items()}
    return parse_plan(
        {
            "base": f"family/{family.base.name}",
            "multitask": f"family/{MULTITASK}",
            "cells": held_in | unseen,
            "evaluate": {
                "tasks": [f"demo_{name}" for name in (*SKILLS, *UNSEEN)],
                "task_path": "tasks",
                "batch_size": 256,
            },
            "methods": methods,
            "number": {"methods": NUMBERED, "orders": 10 if full else 3},
            "data": {"max_length": 64},
            "seeds": [0, 1, 2],
        }
    )


def _write(tasks: Path, calibration: Path, seed: int) -> None:
    """The tasks of all cells, those of the skills with the documents that training left out; and what specialists are
    measured on, none of it in a task.
    """
    if not tasks.is_dir():
        with output_folder(tasks) as partial:
            partial.rmdir()  # it is made there
            write_tasks(partial, (*SKILLS, *UNSEEN), COMPARED.documents, seed)
    for skill in SKILLS:
        path = calibration / f"{skill}.jsonl"
        if path.is_file():
            continue
        lines = (tasks / f"{skill}.jsonl").read_text(encoding="utf-8").splitlines()
        asked = frozenset(json.loads(line)["prompt"] for line in lines)
        drawn = exercises({skill: 1.0}, random.Random(f"calibration/{skill}/{seed}"), asked)
        texts = ["".join(next(drawn)) for _ in range(CALIBRATION)]
        with output_file(path) as partial:
            partial.write_text("".join(json.dumps({"text": text.strip()}) + "\n" for text in texts), encoding="utf-8")
