"""Runs over their whole life, in files and in a database; nothing is started here: jobs wait, or have ended."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, update

from search.config import StopSettings
from search.running.coordinator import Search
from service.http.backend import Backend
from service.http.requests import RunRequest
from service.http.searches import delete_run, extend_run, interrupt_run, resume_run, start_run
from service.http.settings import ServiceSettings
from service.jobs.errors import Conflict, NotFound
from service.jobs.table import JobRow
from tests.conftest import MakeModel
from tests.search.runs import Scene, make_scene
from tests.service.http.conftest import serving
from tests.service.jobs.conftest import BOTH

if TYPE_CHECKING:
    from tests.search.postgres import Server

PASSWORD = "hunter2-is-hidden"
STOP = StopSettings(generations=5)


@dataclass
class Lab:
    """A workspace with models, and a run of one generation in it that is over."""

    scene: Scene
    database: str | None
    _stack: ExitStack

    def backend(self, folder: Path | None = None) -> Backend:
        settings = ServiceSettings(folder or self.scene.folder, database=self.database, roots=(self.scene.folder,))
        backend = Backend(settings)
        self._stack.callback(backend.jobs.close)
        return backend

    def search(self, name: str) -> None:
        config = self.scene.config(stop={"generations": 1})
        with Search(config, self.scene.folder / name, ledger=self.database, evaluator=self.scene.evaluator()) as search:
            search.run()

    def request(self, name: str) -> RunRequest:
        founders = {founder: str(path) for founder, path in self.scene.founders.items()}
        config = {"base": str(self.scene.base), "founders": founders, "evaluate": {"tasks": ["fake"]}}
        return RunRequest.model_validate({"name": name, "config": config})


@pytest.fixture(params=BOTH)
def lab(request: pytest.FixtureRequest, tmp_path: Path, make_model: MakeModel) -> Iterator[Lab]:
    database = None
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        url = make_url(server.new_database()).set(password=PASSWORD)
        database = url.render_as_string(hide_password=False)
    with ExitStack() as stack:
        lab = Lab(make_scene(make_model, tmp_path), database, stack)
        lab.search("run")
        yield lab


def ended(backend: Backend, id: int, state: str) -> None:
    """Have a job be over, as the supervisor would."""
    with backend.jobs.session() as session:
        session.execute(update(JobRow).filter_by(id=id).values(state=state))
        session.commit()


def test_an_extension_paused_before_it_began_is_gone_on_with(lab: Lab) -> None:
    backend = lab.backend()
    with pytest.raises(Conflict, match="finished"):
        resume_run(backend, "run")
    first = extend_run(backend, "run", STOP)
    assert backend.run("run").state == "queued"
    assert interrupt_run(backend, "run", cancel=False).state == "paused"
    again = resume_run(backend, "run")
    assert again.id != first.id
    assert "generations: 5" in (backend.jobs.place(again.id) / "run.yml").read_text()
    ended(backend, again.id, "done")
    with pytest.raises(Conflict, match="finished"):
        resume_run(backend, "run")


def test_a_run_that_is_deleted_does_not_come_back(lab: Lab) -> None:
    backend = lab.backend()
    job = extend_run(backend, "run", STOP)
    with pytest.raises(Conflict, match=f"Job {job.id} works on"):
        delete_run(backend, "run")
    ended(backend, job.id, "paused")
    delete_run(backend, "run")
    assert not (lab.scene.folder / "run").exists()
    assert backend.runs().runs == []
    assert backend.jobs.all().jobs == []
    assert start_run(backend, lab.request("run")).run == "run"


def test_a_run_that_never_began_is_shown_and_can_be_deleted(lab: Lab) -> None:
    backend = lab.backend()
    job = start_run(backend, lab.request("new"))
    assert backend.run("new").state == "queued"
    ended(backend, job.id, "failed")
    assert {run.id: run.state for run in backend.runs().runs} == {"new": "failed", "run": "finished"}
    (lab.scene.folder / "new").mkdir()
    (lab.scene.folder / "new" / ".lock").touch()  # by a search that found its input wrong
    delete_run(backend, "new")
    with pytest.raises(NotFound):
        backend.run("new")
    assert start_run(backend, lab.request("new")).state == "queued"


def test_what_another_server_of_the_database_runs_is_shown_and_left_alone(lab: Lab) -> None:
    if lab.database is None:
        pytest.skip("a file has one server")
    here, there = lab.backend(), lab.backend(_folder(lab.scene.folder / "other"))
    job = extend_run(here, "run", STOP)
    ended(here, job.id, "running")
    assert [(run.id, run.job) for run in there.runs().runs] == [("~2run", job.id)]
    assert there.run("~2run").state == "finished"  # as the database tells: nobody holds it
    assert there.export("~2run").content() == here.export("run").content()
    for attempt in (
        lambda: interrupt_run(there, "~2run", cancel=True), lambda: there.jobs.cancel(job.id),
        lambda: resume_run(there, "~2run"), lambda: extend_run(there, "~2run", STOP),
        lambda: delete_run(there, "~2run"), lambda: start_run(there, lab.request("run")),
    ):  # fmt: skip
        with pytest.raises(Conflict):
            attempt()
    assert here.jobs.get(job.id).state == "running"
    start_run(here, lab.request("theirs"))
    start_run(there, lab.request("mine"))
    moved = there.jobs.move(there.latest()["mine"].id, None)
    assert {job.run for job in moved.jobs} == {"run", "theirs", "mine"}
    assert here.run("theirs").state == "queued"
    with pytest.raises(NotFound):
        there.run("theirs")


def test_a_server_over_it_tells_no_password(lab: Lab) -> None:
    start_run(lab.backend(), lab.request("first"))
    settings = ServiceSettings(lab.scene.folder, port=0, database=lab.database, slots=("cuda:0",))  # nothing starts
    with contextmanager(serving)(settings) as service:
        paths = ["/health", "/runs", "/runs/run", "/runs/run/export", "/runs/run/lineage", "/jobs", "/jobs/1"]
        paths.append("/compared-runs?run=run&run=run")
        for path in [*paths, "/models", "/runs/run/individuals", "/runs/run/events", "/runs/run/artefacts"]:
            reply = service.get(path)
            assert reply.status == 200, (path, reply.body)
            assert PASSWORD.encode() not in reply.body
        for path in ("/", "/runs/run", "/jobs"):
            assert PASSWORD.encode() not in service.ask("GET", path).body
        assert service.get("/runs/first").json()["state"] == "queued"
        assert service.get("/runs/run").json()["summary"]["stopped"]
    kept = [file.read_text() for file in lab.scene.folder.glob("jobs/*/*")]
    assert kept
    assert not [text for text in kept if PASSWORD in text]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
