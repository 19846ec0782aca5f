"""What the API tells of runs, in files or in a database: as the command line does, once each, and live."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from kinship.safe_yaml import load_yaml_documents
from merging.recipe.documents import united
from merging.recipe.schema import parse_recipe
from search.history.descent import renamed
from service import answers
from service.client import Client
from service.http.settings import ServiceSettings
from tests.search.runs import put_small_run
from tests.service.conftest import Kinship
from tests.service.http.conftest import Service, make_workspace, serving
from tests.service.jobs.conftest import BOTH

if TYPE_CHECKING:
    from tests.search.postgres import Server


@pytest.fixture(scope="module", params=BOTH)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Over a run in a file, then over the same in a database."""
    database = None
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        database = server.new_database()
    folder = make_workspace(tmp_path_factory.mktemp("runs"), database)
    yield from serving(ServiceSettings(folder, port=0, database=database))


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.address) as client:
        yield client


def test_answers_are_those_of_the_command_line(service: Service) -> None:
    run = str(service.folder / "run")
    for path, expected in (
        ("export", answers.export_of(run)), ("lineage", answers.trace_run(run)), ("failures", answers.failures_of(run)),
    ):  # fmt: skip
        reply = service.get(f"/runs/run/{path}")
        assert reply.json() == json.loads(expected.to_json())
        again = service.get(f"/runs/run/{path}", If_None_Match=reply.headers["etag"])
        assert (again.status, again.body) == (304, b"")
    (listed,) = service.get("/runs").json()["runs"]
    assert listed["summary"] == answers.list_runs(str(service.folder)).runs[0].content()
    assert (listed["id"], listed["state"], listed["error"]) == ("run", "finished", None)


def test_routes_answer_what_the_command_line_prints(service: Service, kinship: Kinship) -> None:
    run = service.folder / "run"
    for path, command in (
        ("/runs/run/export", ["runs", "show", run]), ("/runs/run/failures", ["runs", "show", run, "--failures"]),
        ("/runs/run/lineage", ["tree", run]), ("/compared-runs?run=run&run=run", ["runs", "compare", run, run]),
    ):  # fmt: skip
        outcome = kinship(*command, "--json")
        assert outcome.code == 0, outcome.err
        assert service.get(path).json() == json.loads(outcome.out), path


def test_a_run_that_comes_is_there_and_one_that_cannot_be_read_says_so(service: Service) -> None:
    (service.folder / "a~b" / "c").mkdir(parents=True)
    put_small_run(service.folder / "a~b" / "c")
    assert service.get("/runs/a~0b~1c").json()["state"] == "finished"
    (service.folder / "broken").mkdir()
    (service.folder / "broken" / "ledger.sqlite").write_bytes(b"no database" * 500)
    reply = service.get("/runs/broken")
    assert reply.status == 200
    assert "not a readable ledger" in reply.json()["error"]
    assert service.get("/runs/broken/export").status == 422
    assert service.ask("DELETE", "/api/v1/runs/a~0b~1c").status == 204
    assert not (service.folder / "a~b" / "c").exists()
    assert service.get("/runs/a~0b~1c").status == 404


def test_individuals_by_pages(service: Service, client: Client) -> None:
    everybody = [person.id for person in answers.export_of(str(service.folder / "run")).individuals]
    assert [person.id for person in client.individuals("run", most=2)] == everybody
    best = [person.scores["search"].value for person in client.individuals("run", order="best", most=3, failed=False)]
    assert best == sorted(best, reverse=True)
    found = service.get("/runs/run/individuals?generation=1&failed=true").json()
    assert [person["id"] for person in found["individuals"]] == ["1-2"]
    assert found["total"] == 1
    assert service.get("/runs/run/individuals/1-1").json()["parents"]
    assert service.get("/runs/run/individuals/nobody/recipe").status == 404


def test_a_recipe_names_nothing_but_base_and_founders_whatever_lies_between(service: Service) -> None:
    export = answers.export_of(str(service.folder / "run"))
    config: Any = export.config
    founders = {config["base"], *config["founders"].values()}
    merged = [person for person in export.individuals if person.identity is not None]
    assert any(parent not in config["founders"] for person in merged for parent in person.parents)  # grandchildren
    for person in merged:
        text = service.get(f"/runs/run/individuals/{person.id}/recipe").body.decode()
        recipe = parse_recipe(united(load_yaml_documents(text), "the recipe"))
        assert set(recipe.references) <= founders, person.id
        if person.id == export.best_offspring:
            names = {"base": config["base"], **config["founders"]}
            assert export.best_offspring_recipe is not None
            assert recipe == renamed(parse_recipe(export.best_offspring_recipe), names)


def test_events_are_told_once_each_and_from_anywhere_on(client: Client) -> None:
    page = client.get(answers.RunEvents, "runs", "run", "events", most=500)
    assert {"started", "added", "generation", "ended"} <= {event.name for event in page.events}
    scored = [event for event in page.events if event.name == "scored"]
    assert {"individual", "split", "value", "stderr", "documents", "tasks"} <= scored[0].facts.keys()
    assert next(event for event in page.events if event.name == "failed").facts["error"]
    streamed = []
    for event in client.events("run"):
        streamed.append(event)
        if event.id == page.last:
            break
    assert streamed == list(page.events)
    middle = page.events[len(page.events) // 2].id
    for event in client.events("run", middle):
        assert event.id == next(other.id for other in page.events if other.id > middle)
        break


def test_a_listener_hears_what_is_written_later(service: Service, client: Client) -> None:
    from search.ledger.ledger import Ledger

    last = client.get(answers.RunEvents, "runs", "run", "events", most=500).last
    events = client.events("run", last)
    with Ledger.of_run(service.folder / "run") as ledger:
        ledger.note("paused", {"why": "a test"}, ledger.seconds())
    event = next(events)
    assert (event.id > last, event.name, event.facts) == (True, "paused", {"why": "a test"})


@pytest.mark.parametrize("last", ["-1", "x", "1e9", "9" * 40, "1;drop", "\xb2"])
def test_absurd_numbers_of_events(service: Service, last: str) -> None:
    assert service.get("/runs/run/stream", Last_Event_ID=last).status == 422


@pytest.mark.parametrize(
    "path",
    [
        "/runs", "/runs/run", "/runs/run/export", "/runs/run/lineage", "/runs/run/failures", "/runs/run/individuals",
        "/runs/run/individuals/1-1", "/runs/run/individuals/1-1/recipe", "/runs/run/events", "/runs/run/artefacts",
        "/runs/run/artefacts/report.html", "/models", "/models/facts?reference=one", "/jobs",
        "/compared-runs?run=run&run=run",
    ],
)  # fmt: skip
def test_what_a_client_has_is_not_sent_again(service: Service, path: str) -> None:
    first = service.get(path)
    again = service.get(path, If_None_Match=f'"other", {first.headers["etag"]}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert service.get(path, If_None_Match='"other"').body == first.body


@pytest.mark.parametrize(
    ("page", "path"),
    [
        ("/", "/runs"), ("/runs/run", "/runs/run"), ("/runs/run/individuals/1-1", "/runs/run/individuals/1-1"),
        ("/compare?run=run&run=run", "/compared-runs?run=run&run=run"), ("/trees?run=run", "/runs/run/lineage"),
        ("/kinship", "/models"), ("/trees", "/models"), ("/merge", "/models"), ("/jobs", "/jobs"),
        ("/new", "/openapi.json"), ("/compare", "/runs"), ("/runs/nobody", "/runs/nobody"), ("/jobs/99", "/jobs/99"),
    ],
)  # fmt: skip
def test_every_page_answers_as_json_too(service: Service, page: str, path: str) -> None:
    told, asked = service.ask("GET", page, headers={"Accept": "application/json"}), service.get(path)
    assert (told.status, told.json()) == (asked.status, asked.json())
    assert "accept" in told.headers["vary"].lower()
    for accept in ("text/html", "*/*", "text/html,application/json;q=0.9"):
        assert not service.ask("GET", page, headers={"Accept": accept}).body.startswith(b'{"schema": "kinship.run')
