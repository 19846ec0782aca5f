"""What the service tells, and does, while what it stands on is away: a database, a disk, a folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.http.settings import ServiceSettings
from service.jobs import supervisor
from service.jobs.supervisor import Supervisor
from tests.search.postgres import Server
from tests.search.postgres import serving as postgres_serving
from tests.service.http.conftest import Reply, Service, make_workspace, serving
from tests.service.jobs.conftest import Scene, wait_for
from tests.service.jobs.conftest import scene as scene  # a fixture

MATRIX = {"models": ["one", "two"], "base": "base", "dry_run": True}


def unavailable(reply: Reply, code: str) -> None:
    assert reply.status == 503, (reply.status, reply.body)
    assert {"schema", "code", "message", "hint"} == reply.json().keys()
    assert reply.json()["code"] == code
    assert int(reply.headers["retry-after"]) > 0


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Server]:
    """A server of this module's own, since it is stopped."""
    with postgres_serving() as server:
        yield server


@pytest.mark.xdist_group("postgres")
def test_a_database_goes_away_and_comes_back(own_postgres: Server, tmp_path: Path) -> None:
    folder = make_workspace(tmp_path)
    settings = ServiceSettings(folder, port=0, database=own_postgres.new_database(), slots=("cuda:0",))
    with contextmanager(serving)(settings) as service:
        paths = ["/runs", "/runs/run", "/jobs", "/models", "/runs/run/export"]
        asked = {"reference": "org/name"}
        assert [service.get(path).status for path in paths] == [200] * 5
        assert service.post("/models", asked).status == 200
        own_postgres.stop()
        for path in ("/runs", "/runs/run", "/jobs", "/models"):
            unavailable(service.get(path), "database_unavailable")
        unavailable(service.post("/models", asked), "database_unavailable")
        unavailable(service.post("/kinship/matrices", MATRIX), "database_unavailable")
        assert service.get("/health").status == 200
        own_postgres.start()
        wait_for(lambda: service.get("/jobs").status == 200)
        assert [service.get(path).status for path in paths] == [200] * 5
        assert "org/name" in [model["reference"] for model in service.get("/models").json()["models"]]


def test_where_nothing_can_be_written_the_system_is_told_of(service: Service) -> None:
    jobs = service.folder / "jobs"
    shutil.rmtree(jobs, ignore_errors=True)
    jobs.write_text("in the way")
    reply = service.post("/kinship/matrices", MATRIX)
    unavailable(reply, "system_refused")
    assert "jobs" in reply.json()["message"]
    jobs.unlink()
    assert service.get("/jobs").json()["jobs"] == []
    assert service.post("/kinship/matrices", MATRIX).status == 202


def test_a_workspace_that_is_moved_away_is_missed_until_it_is_back(service: Service) -> None:
    away = service.folder.with_name("away")
    service.folder.rename(away)
    try:
        for path in ("/runs", "/jobs", "/models"):
            unavailable(service.get(path), "database_unavailable")
        unavailable(service.post("/models", {"reference": "org/lost"}), "database_unavailable")
        assert not service.folder.exists()
    finally:
        away.rename(service.folder)
    assert service.get("/runs/run/export").status == 200
    assert service.post("/models", {"reference": "org/back"}).status == 200


def test_the_supervisor_outlives_whatever_one_look_raises(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look(self: Supervisor) -> None:
        looks.append(1)
        if len(looks) < 3:
            raise ValueError("something that nobody foresaw")

    monkeypatch.setattr(Supervisor, "look", look)
    monkeypatch.setattr(supervisor, "SECONDS", 0.01)
    with Supervisor(scene.board):
        wait_for(lambda: len(looks) > 3)
