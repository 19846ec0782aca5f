"""What is told of a run while it is written: increments come to what a reading of everything does; one look for all."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import search.ledger.ledger as ledgers
from search.ledger.ledger import Ledger
from search.ledger.location import location_of
from search.running.coordinator import Search
from service.http.backend import Backend
from service.http.feeds import KEPT, Feeds
from service.http.ledgers import TICK, Ledgers
from service.http.looking import RunView, look
from service.http.remembering import Remembered
from service.http.settings import ServiceSettings
from service.http.workspace import RunPlace
from tests.conftest import MakeModel
from tests.search.runs import failing, make_scene, put_small_run, rewrite
from tests.service.jobs.conftest import BOTH

if TYPE_CHECKING:
    from tests.search.postgres import Server


def parts(view: RunView) -> tuple[Any, ...]:
    return list(view.records), view.summary, list(view.diary), view.evaluations, view.last, view.error


@pytest.mark.parametrize("kept", BOTH)
def test_looks_at_a_run_that_grows_read_what_is_new(
    request: pytest.FixtureRequest, tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    scene, database = make_scene(make_model, tmp_path), None
    if kept == "postgres":
        server: Server = request.getfixturevalue("postgres")
        database = server.new_database()
    shared, views, read = Ledgers(), Remembered(look, kept=4), list[Any]()
    real = Ledger.records

    def records(self: Ledger, ids: Any = None) -> Any:
        read.append(ids)
        return real(self, ids)

    def observer(name: str, facts: Mapping[str, Any]) -> None:
        if name not in {"scored", "failed", "generation"}:
            return
        monkeypatch.setattr(Ledger, "records", records)
        place = RunPlace("run", location_of(scene.folder / "run"), scene.folder / "run", shared)
        view = views.of(place)
        assert parts(view) == parts(look(place))
        assert read.pop() is None  # the one that knows nothing
        looks.append(read.pop() if read else set())
        if kept == "postgres":
            assert views.of(place) is view  # nothing was written, and so nothing is read
        monkeypatch.setattr(Ledger, "records", real)

    looks: list[Any] = []
    config = scene.config(stop={"generations": 2})
    with Search(
        config, scene.folder / "run", ledger=database, evaluator=scene.evaluator(failing("1-2")), observer=observer
    ) as search:
        search.run()
    assert len(looks) > 8
    assert looks[0] is None
    assert all(len(ids) <= 6 for ids in looks[1:])  # a generation, or one who was scored
    shared.close()


def test_another_run_of_that_name_is_read_anew(tmp_path: Path) -> None:
    ledger = put_small_run(_folder(tmp_path / "run"))
    place, views = RunPlace("run", location_of(tmp_path / "run"), tmp_path / "run"), Remembered(look, kept=4)
    first = views.of(place)
    ledger.rename(tmp_path / "old.sqlite")
    rewrite(put_small_run(tmp_path / "run"), "UPDATE failure SET message = ?", "another reason")
    assert parts(views.of(place)) == parts(look(place)) != parts(first)


def test_a_file_is_found_whole_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = put_small_run(_folder(tmp_path / "run"))
    place, compared = RunPlace("run", location_of(tmp_path / "run"), tmp_path / "run"), list[object]()
    real = ledgers.damage
    monkeypatch.setattr(ledgers, "damage", lambda engine: compared.append(engine) or real(engine))
    for _ in range(3):
        place.open().close()
    assert len(compared) == 1
    ledger.rename(ledger.with_suffix(".old"))
    ledger.write_bytes(ledger.with_suffix(".old").read_bytes())
    place.open().close()
    assert len(compared) == 2


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    put_small_run(_folder(tmp_path / "run"))
    backend = Backend(ServiceSettings(tmp_path))
    yield backend
    backend.jobs.close()


def test_all_listeners_share_one_look(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [event.id for event in backend.events("run", most=KEPT).events]
    asked: list[int] = []
    real = backend.events

    def events(run: str, after: int = 0, most: int = 500) -> Any:
        asked.append(after)
        return real(run, after, most)

    monkeypatch.setattr(backend, "events", events)

    async def listen(feeds: Feeds, after: int) -> list[int]:
        heard = []
        async for event in feeds.follow("run", after):
            heard.append(int(str(event.id)))
            if heard[-1] == expected[-1]:
                break
        return heard

    async def everybody() -> list[list[int]]:
        feeds = Feeds(backend)
        return await asyncio.gather(*(listen(feeds, expected[number % 5]) for number in range(50)))

    for number, heard in enumerate(asyncio.run(everybody())):
        assert heard == expected[number % 5 + 1 :]
    assert len(asked) <= 2


def test_what_is_told_of_a_run_is_read_once(backend: Backend) -> None:
    time.sleep(2 * TICK / 1e9)  # until it is no more just written
    for asked in (backend.export, backend.lineage, backend.failures):
        assert asked("run") is asked("run")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
