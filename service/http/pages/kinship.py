"""The kinship explorer: a matrix of models that are picked, a pair by layer, a dendrogram, pairs worth merging."""

from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import urlencode

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.responses import Response

from kinship.errors import KinshipError
from kinship.validation import invalid
from service.answers.advice import Advice
from service.answers.dendrogram import Dendrogram
from service.answers.error import Error
from service.answers.matrix import Matrix, MatrixPlan
from service.http import orders
from service.http.backend import Asked
from service.http.measuring import Chosen, Metric, known, measured
from service.http.pages.rendering import page
from service.http.pages.typed import Form, every, go_to
from service.http.requests import MatrixRequest
from service.http.searches import submit

router = APIRouter()


@router.get("/kinship")
def show_kinship(
    backend: Asked,
    base: str = "",
    model: Chosen = None,
    more: str = "",
    metric: Metric = "pcc",
    job: int | None = None,
) -> Response:
    """The form, and the matrix of what the address names."""
    models = list(dict.fromkeys([*(model or []), *more.split()]))
    plan: MatrixPlan | None = None
    matrix: Matrix | None = None
    error: Error | None = None
    if job is not None or (base and models):
        try:
            if job is not None:
                matrix = Matrix.model_validate_json(backend.jobs.result(job))
                base, models, metric = matrix.base, matrix.ids, cast(Metric, matrix.metric)
            else:
                plan, matrix = measured(backend, base, models, metric, "layer")
        except KinshipError as problem:
            error = Error.of(problem)
    return page(
        "kinship", "/kinship", json=_json(job, base, models, metric),
        status=422 if error else 200, base=base, models=models, metric=metric, plan=plan,
        error=error, matrix=matrix, data=_data(matrix) if matrix else None,
        known=known(backend),
        advice=Advice.of(matrix.matrix()) if matrix and len(models) > 1 and metric != "euclidean" else None,
    )  # fmt: skip


@router.post("/kinship")
def measure_as_job(backend: Asked, form: Form) -> Response:
    """Have a large matrix measured by a job, whose result this page shows later."""
    fields = {"metric": "pcc"} | {name: value for name, value in form if name in {"base", "metric"}}
    try:
        request = MatrixRequest.model_validate({"models": every(form, "model"), "by": "layer"} | fields)
    except ValidationError as error:
        raise invalid(error, "the form", MatrixRequest) from None
    return go_to("jobs", submit(backend, orders.matrix(request, backend.settings)).id)


def _json(job: int | None, base: str, models: Sequence[str], metric: Metric) -> str | None:
    if job is not None:
        return f"jobs/{job}/result"
    query = urlencode({"base": base, "model": models, "metric": metric}, doseq=True)
    return f"kinship/matrices?{query}" if base and models else None


def _data(matrix: Matrix) -> dict[str, Any]:
    """What the page draws; layers keep their order."""
    found: dict[str, Any] = {"ids": matrix.ids, "metric": matrix.metric, "values": matrix.values, "base": matrix.base}
    found["layers"] = matrix.groups or {}
    if len(matrix.ids) > 1 and all(value is not None for row in matrix.values for value in row):
        found["linkage"] = Dendrogram.of(matrix.matrix()).linkage
    return found
