"""The queue, and the page of one job."""

import json

from fastapi import APIRouter
from starlette.responses import Response

from service.http.artefacts import job_folder, list_files
from service.http.backend import Asked
from service.http.pages.rendering import by_folder, page
from service.jobs.folder import RESULT

router = APIRouter()

SHOWN = {
    "kinship.family/": "/trees",
    "kinship.heritage/": "/trees",
    "kinship.matrix/": "/kinship",
    "kinship.score/": "/scores",
}


@router.get("/jobs")
def show_jobs(backend: Asked) -> Response:
    """Every job: those that wait in their order, then the others, the latest first."""
    return page("jobs", "/jobs", json="jobs", jobs=backend.jobs.all().jobs)


@router.get("/jobs/live")
def show_live(backend: Asked) -> Response:
    """The list alone, for a page that is open."""
    return page("jobs_live", "/jobs", jobs=backend.jobs.all().jobs)


@router.get("/jobs/{job}")
def show_job(job: int, backend: Asked) -> Response:
    """One job: what it is at, its log, and where its result is."""
    found = backend.jobs.get(job)
    result = backend.jobs.result(job) if found.state == "done" and found.run is None else ""
    schema = json.loads(result).get("schema", "") if result else ""
    files = by_folder(list_files(job_folder(backend, job)).files) if found.state == "done" else []
    shown = next((page for name, page in SHOWN.items() if schema.startswith(name)), None)
    return page(
        "job",
        "/jobs",
        json=f"jobs/{job}",
        job=found,
        log=backend.jobs.log(job),
        result=result,
        shown=shown,
        files=files,
        best=None,  # of a run
        place=backend.jobs.place(job) / RESULT,
        address=f"/api/v1/jobs/{job}",
    )
