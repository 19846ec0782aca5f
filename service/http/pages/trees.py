"""Family trees: of a run, of models as their files tell it, or with what their weights tell."""

import json
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from starlette.responses import Response

from kinship.errors import InvalidConfig, KinshipError
from service.answers.error import Error
from service.answers.tree import Descent, FamilyTree, RecoveredHeritage, findings_of
from service.http import orders
from service.http.backend import Asked, Backend
from service.http.measuring import Chosen, known, named, recorded
from service.http.pages.rendering import page
from service.http.pages.run import name_of
from service.http.pages.typed import Form, every, go_to
from service.http.requests import TreeRequest
from service.http.searches import submit
from service.pages.tree import tree_content

router = APIRouter()


@router.get("/trees")
def show_tree(
    backend: Asked,
    run: str | None = None,
    job: int | None = None,
    base: str = "",
    model: Chosen = None,
) -> Response:
    """The form, and the tree of what the address names; recovery from weights is a job, whose tree is shown here."""
    error: Error | None = None
    descent: Descent | None = None
    title = ""
    try:
        if run is not None:
            descent, title = backend.lineage(run), f"Lineage of {name_of(run)}"
        elif job is not None:
            descent, title = _of_job(backend, job), f"Family tree of job {job}"
        elif model:
            descent, title = recorded(backend, base, model), "As recorded in the models' files"
    except KinshipError as problem:
        error = Error.of(problem)
    query = urlencode({"base": base, "model": model or []}, doseq=True)
    there = f"jobs/{job}/result" if job is not None else f"trees?{query}" if model else None
    content = tree_content(descent.tree()) if descent else None
    if descent and content:
        content["findings"] = [finding.content() for finding in findings_of(descent)]
        content = named(backend, content)
    return page(
        "trees", "/trees", json=f"runs/{quote(run)}/lineage" if run is not None else there,
        status=422 if error else 200, error=error, data=content, title=title, run=run, base=base,
        models=model or [], notes=descent.notes if isinstance(descent, RecoveredHeritage) else [],
        known=known(backend),
        recipes={node["id"]: node.get("recipe") for node in content["nodes"]} if content else {},
        runs=[one.id for one in backend.runs().runs if one.summary is not None], name_of=name_of,
    )  # fmt: skip


@router.post("/trees")
def recover_as_job(backend: Asked, form: Form) -> Response:
    """Recover descent from weights, by a job, whose tree this page shows later."""
    models = every(form, "model")
    if not models:
        raise InvalidConfig("No models are ticked.", hint="Tick two or more.")
    request = TreeRequest(models=models, base=dict(form).get("base", "").strip() or None, kind="both")
    return go_to("jobs", submit(backend, orders.tree(request, backend.settings)).id)


def _of_job(backend: Backend, job: int) -> Descent:
    content = json.loads(backend.jobs.result(job))
    kind = RecoveredHeritage if content["schema"].startswith("kinship.heritage/") else FamilyTree
    return kind.model_validate(content)
