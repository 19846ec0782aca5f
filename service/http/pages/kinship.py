"""The kinship explorer: a matrix of models that are picked, a pair by layer, a dendrogram, pairs worth merging."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from kinship.errors import KinshipError
from service.answers.advice import Advice
from service.answers.dendrogram import Dendrogram
from service.answers.error import Error
from service.answers.matrix import Matrix, MatrixPlan, measure_matrix, plan_matrix
from service.http.backend import Asked, Backend
from service.http.pages.rendering import page

router = APIRouter()

MOST_SECONDS = 20.0  # of a matrix that a page waits for
Metric = Literal["pcc", "cosine", "euclidean"]


@router.get("/kinship")
def show_kinship(
    backend: Asked,
    base: str = "",
    model: Annotated[list[str] | None, Query(max_length=200)] = None,
    more: str = "",
    metric: Metric = "pcc",
) -> Response:
    """The form, and the matrix of what the address names."""
    models = list(dict.fromkeys([*(model or []), *more.split()]))
    plan: MatrixPlan | None = None
    matrix: Matrix | None = None
    error: Error | None = None
    if base and models:
        try:
            plan, matrix = measured(backend, base, models, metric)
        except KinshipError as problem:
            error = Error.of(problem)
    return page(
        "kinship", "/kinship", status=422 if error else 200, base=base, models=models, metric=metric, plan=plan,
        error=error, matrix=matrix, data=_data(matrix) if matrix else None,
        known=[backend.workspace.relative(path) for path in backend.workspace.models()],
        advice=Advice.of(matrix.matrix()) if matrix and len(models) > 1 and metric != "euclidean" else None,
    )  # fmt: skip


def measured(
    backend: Backend, base: str, models: Sequence[str], metric: Metric
) -> tuple[MatrixPlan, Matrix | None]:
    """What it takes, and the matrix by layer, where that takes no longer than a page may; ids are as people gave them."""
    places = [backend.reference(text) for text in [base, *models]]
    plan = plan_matrix(places[1:], places[0])
    if plan.seconds > MOST_SECONDS or plan.bytes_to_download:
        return plan, None
    matrix = measure_matrix(places[1:], places[0], metric, by="layer")
    return plan, matrix.model_copy(update={"ids": list(models), "base": base})


def _data(matrix: Matrix) -> dict[str, Any]:
    """What the page draws; layers keep their order."""
    found: dict[str, Any] = {"ids": matrix.ids, "metric": matrix.metric, "values": matrix.values, "base": matrix.base}
    found["layers"] = matrix.groups or {}
    if len(matrix.ids) > 1 and all(value is not None for row in matrix.values for value in row):
        found["linkage"] = Dendrogram.of(matrix.matrix()).linkage
    return found
