"""Plans over the small trained family: three specialists, one unseen task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from service.demo.family import Family


def content_of(family: "Family", **changes: Any) -> dict[str, Any]:
    """A plan as plain data; ``changes`` replace keys of it."""
    models = {Path(founder).name: str(founder) for founder in family.founders}
    return {
        "base": str(family.base),
        "multitask": models["count-sort"],
        "cells": {
            "sort": {"task": "demo_sort", "model": models["sort"], "same_data": models["count-sort"]},
            "max": {"task": "demo_max", "model": models["max-add"]},
            "count": {"task": "demo_count", "model": models["count"]},
            "add": {"task": "demo_add"},
        },
        "evaluate": {
            "tasks": list(family.task_names),
            "task_path": str(family.tasks),
            "batch_size": 256,
        },
        "methods": {
            "linear": {"tune": {"scale": [0.5, 1.5]}},
            "task_arithmetic": {"parameters": {"lambda": 0.4}, "sweep": {"lambda": [0.0, 1.0]}},
            "dare": {"method": "dare_linear", "parameters": {"density": 0.5, "lambda": 0.4}},
        },
        "number": {"methods": ["linear"], "orders": 2},
        "seeds": [0, 1],
    } | changes


def write_plan(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
