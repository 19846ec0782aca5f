"""What is measured of models, or read in their files, while somebody waits; named from the workspace."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Query

from kinship.errors import InvalidConfig
from service.answers.matrix import Matrix, MatrixPlan, measure_matrix, plan_matrix
from service.answers.tree import FamilyTree, trace_models
from service.http.backend import Backend
from service.http.models import list_models
from service.http.references import require_reference

MOST_SECONDS = 20.0
Metric = Literal["pcc", "cosine", "euclidean"]
Chosen = Annotated[list[str] | None, Query(max_length=200, description="Models: folders of the workspace, or Hub ids.")]


def known(backend: Backend) -> list[str]:
    """Every model of the workspace and every remembered reference."""
    return [model.reference for model in list_models(backend).models]


def located(backend: Backend, reference: str) -> str:
    """A reference as any function takes it: folders in full. Raises `Refused` for what leads out of the workspace."""
    folder = backend.settings.folder.absolute()
    parts = require_reference(reference, backend.settings).split("+")
    return "+".join(str(folder / part) if _is_there(folder / part) else part for part in parts)


def named(backend: Backend, content: Any) -> Any:
    """Plain data in which folders of the workspace are told from there, the opposite of `located`."""
    if isinstance(content, str):
        return content.replace(f"{backend.settings.folder.absolute()}{os.sep}", "")
    if isinstance(content, Mapping):
        return {key: named(backend, value) for key, value in content.items()}
    return [named(backend, value) for value in content] if isinstance(content, list | tuple) else content


def measured(
    backend: Backend, base: str, models: Sequence[str], metric: str = "pcc", by: str | None = None
) -> tuple[MatrixPlan, Matrix | None]:
    """What a matrix takes, and itself where that is no longer than a page may; ids are as people gave them.

    Raises what `measure_matrix` raises, and `Refused`.
    """
    if not models:
        raise InvalidConfig("No models are named.", hint="Name some.")
    first, *others = (located(backend, text) for text in [base, *models])
    plan = plan_matrix(others, first)
    if plan.seconds > MOST_SECONDS or plan.bytes_to_download:
        return plan, None
    matrix = measure_matrix(others, first, metric, by=by)
    return plan, matrix.model_copy(update={"ids": list(models), "base": base})


def recorded(backend: Backend, base: str, models: Sequence[str]) -> FamilyTree:
    """Descent as the models' files tell it. Raises what `trace_models` raises, and `Refused`."""
    if not models:
        raise InvalidConfig("No models are named.", hint="Name some.")
    texts = dict.fromkeys([*([base] if base else []), *models])
    found = trace_models([located(backend, text) for text in texts])
    return FamilyTree.model_validate(named(backend, found.content()))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
