"""The API answers as the command line does, by pages, once for each key, and live."""

import inspect
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from kinship.errors import InvalidConfig
from merging.recipe.schema import parse_recipe
from search.ledger.location import POINTER_NAME
from service import answers
from service.answers.base import Answer
from service.answers.results import JobResult
from service.client import AsyncClient, Client, NoService, ServiceError
from service.http import orders
from service.http.requests import AdviceRequest, ComparisonRequest, MatrixRequest, MergeRequest, TreeRequest
from service.http.settings import ServiceSettings
from service.http.workspace import Workspace
from service.jobs.folder import placed
from tests.service.conftest import Kinship
from tests.service.http.conftest import Service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.address) as client:
        yield client


def test_a_job_prints_what_the_same_question_on_the_command_line_does(
    service: Service, kinship: Kinship, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Jobs are commands: of each kind the command is asked here, and its answer compared with that of Python."""
    monkeypatch.chdir(service.folder)
    settings, models = ServiceSettings(service.folder), ["one", "two"]
    recipe = {"merge_method": "linear", "models": [{"model": name, "parameters": {"weight": 1}} for name in models]}
    pair: dict[str, Any] = {"models": models, "base": "base"}
    Path("scores.csv").write_text("model,score\none,0.5\ntwo,0.25\n")
    told: list[tuple[orders.Order, Answer]] = [
        (orders.matrix(MatrixRequest(**pair), settings), answers.measure_matrix(models, "base")),
        (orders.matrix(MatrixRequest(**pair, dry_run=True), settings), answers.plan_matrix(models, "base")),
        (orders.advise(ComparisonRequest(**pair), settings), answers.advise_pairs(models, "base")),
        (
            orders.advise(AdviceRequest(**pair, scores="scores.csv"), settings),
            answers.advise_pairs(models, "base", scores="scores.csv"),
        ),
        (orders.tree(TreeRequest(**pair), settings), answers.trace_models(models, "base")),
        (orders.tree(TreeRequest(**pair, kind="both"), settings), answers.trace_models(models, "base", recover=True)),
        (orders.tree(TreeRequest(**pair, kind="dendrogram"), settings), answers.join_models(models, "base")),
        (
            orders.merge(MergeRequest(name="m", recipe=recipe, dry_run=True), settings),
            answers.plan_merging(parse_recipe(recipe), tmp_path / "m"),
        ),
    ]
    for order, expected in told:
        for name, text in order.files.items():
            (tmp_path / name).write_text(text)
        outcome = kinship(*placed(order.arguments, tmp_path, tmp_path))
        assert outcome.code == 0, outcome.err
        printed, made = (json.loads(text) for text in (outcome.out, expected.to_json()))
        assert printed.keys() == made.keys()
        assert {key for key in made if printed[key] != made[key]} <= {"seconds", "disk_free"}, order.title  # of now
        assert type(TypeAdapter(JobResult).validate_json(outcome.out)) is type(expected)


def test_what_is_asked_twice_is_done_once(service: Service) -> None:
    body = {"models": ["one", "two"], "base": "base", "dry_run": True}
    first = service.post("/kinship/matrices", body, Idempotency_Key="k")
    again = service.post("/kinship/matrices", body, Idempotency_Key="k")
    assert (first.status, again.status) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    other = service.post("/kinship/matrices", body | {"dry_run": False}, Idempotency_Key="k")
    assert (other.status, other.json()["code"]) == (409, "conflict")
    assert first.headers["location"] == f"/api/v1/jobs/{first.json()['id']}"


def test_a_matrix_by_the_client(service: Service, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job = client.wait(client.measure_matrix(["one", "two"], "base"), 120)
    assert job.state == "done", client.log(job.id).text
    monkeypatch.chdir(service.folder)
    assert client.result(answers.Matrix, job) == answers.measure_matrix(["one", "two"], "base")


def test_a_run_whose_database_does_not_answer_hides_no_other(service: Service) -> None:
    workspace = service.server.config.app.state.backend.workspace  # type: ignore[union-attr]
    (service.folder / "gone").mkdir()
    pointer = {"schema": "kinship.ledger/1", "ledger": "postgresql://127.0.0.1:1/none#gone"}
    (service.folder / "gone" / POINTER_NAME).write_text(json.dumps(pointer))
    workspace.forget()
    reply = service.get("/runs")
    assert reply.status == 200
    found = {run["id"]: run for run in reply.json()["runs"]}
    assert (found["run"]["state"], found["gone"]["state"]) == ("finished", "new")
    assert "127.0.0.1" in found["gone"]["error"]
    shutil.rmtree(service.folder / "gone")
    workspace.forget()


def test_names_that_are_no_text_are_left_out(service: Service) -> None:
    """No address and no JSON could name them; what is no plain file is no file to take away."""
    workspace = service.server.config.app.state.backend.workspace  # type: ignore[union-attr]
    odd = service.folder / os.fsdecode(b"zqx\xff")
    shutil.copytree(service.folder / "run", odd / "run", symlinks=True)
    run = service.folder / "run"
    (run / os.fsdecode(b"zqx\xff.txt")).touch()
    os.mkfifo(run / "pipe.txt")
    workspace.forget()
    for address in ("/api/v1/runs", "/api/v1/models", "/api/v1/runs/run/artefacts", "/", "/runs/run/files", "/new"):
        reply = service.ask("GET", address)
        assert reply.status == 200, address
        assert b"zqx" not in reply.body
        assert b"pipe.txt" not in reply.body
    shutil.rmtree(odd)
    (run / os.fsdecode(b"zqx\xff.txt")).unlink()
    (run / "pipe.txt").unlink()
    workspace.forget()


def test_models_are_found_and_remembered(service: Service, client: Client) -> None:
    assert [model.reference for model in client.models().models if model.kind == "folder"] == ["base", "one", "two"]
    assert service.post("/models", {"reference": "org/name@main"}).status == 200
    assert "org/name@main" in [model.reference for model in client.models().models]
    assert service.ask("DELETE", "/api/v1/models?reference=org/name@main").status == 204
    assert service.ask("DELETE", "/api/v1/models?reference=org/name@main").status == 404
    facts = client.model("one", identity=True)
    assert (facts.model_type, facts.dtypes, facts.parameters) == ("llama", ["float32"], sum(
        _count(tensor.shape) for tensor in facts.tensors
    ))  # fmt: skip
    assert facts.identity


@pytest.mark.parametrize("reference", ["run", "run/export.json", "torn", "torn+one", "one+run", "nothing"])
def test_what_is_no_model_is_not_remembered(service: Service, client: Client, reference: str) -> None:
    (service.folder / "torn").mkdir(exist_ok=True)
    (service.folder / "torn" / "model.safetensors").write_bytes(b"\xff" * 20)
    refused = service.post("/models", {"reference": reference})
    assert refused.status in {403, 404, 422}
    assert refused.json()["hint"]
    assert reference not in [model.reference for model in client.models().models if model.kind == "registered"]
    shutil.rmtree(service.folder / "torn")


def test_models_whose_configs_are_none_hold_nobody_up(service: Service, client: Client) -> None:
    """A pipe would be read for ever; what is no config of a model has no kind."""
    for name, config in (("deep", "[" * 100_000), ("odd", '{"model_type": [1]}'), ("list", "[]"), ("pipe", None)):
        folder = service.folder / "odd" / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"")
        if config is None:
            os.mkfifo(folder / "config.json")
        else:
            (folder / "config.json").write_text(config)
    service.server.config.app.state.backend.workspace.forget()  # type: ignore[union-attr]
    found = {model.reference: model.model_type for model in client.models().models}
    assert [found[f"odd/{name}"] for name in ("deep", "odd", "list", "pipe")] == [None] * 4


def _count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


async def _asked(address: str) -> tuple[answers.Health, int]:
    async with AsyncClient(address) as client:
        found = [person async for person in client.individuals("run", most=2)]
        async for event in client.events("run"):
            assert event.id
            break
        return await client.health(), len(found)


def test_the_other_client(service: Service, client: Client) -> None:
    import asyncio

    health, count = asyncio.run(_asked(service.address))
    assert health == client.health()
    assert count == len(list(client.individuals("run")))
    with pytest.raises(ServiceError, match="no run 'x'") as failed:
        client.run("x")
    assert (failed.value.status, failed.value.told) == (404, "not_found")


def test_ids_are_paths_that_can_be_read_back(tmp_path: Path) -> None:
    workspace = Workspace(ServiceSettings(tmp_path))
    ids = {workspace.id_of(tmp_path / path) for path in (".", "a/b", "a~1b", "a~b", "~", "a")}
    assert len(ids) == 6
    assert workspace.id_of(tmp_path / "a/b") == "a~1b"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/health", "Health"), ("/runs", "ServedRuns"), ("/runs/{run}", "ServedRun"), ("/jobs", "Jobs"),
        ("/runs/{run}/export", "RunExport"), ("/runs/{run}/events", "RunEvents"), ("/jobs/{job}/log", "JobLog"),
        ("/models/facts", "ModelFacts"), ("/runs/{run}/individuals", "IndividualPage"), ("/jobs/{job}", "Job"),
        ("/runs/{run}/lineage", "RunLineage"), ("/compared-runs", "ComparedRuns"), ("/models", "ServedModels"),
    ],
)  # fmt: skip
def test_the_client_reads_what_the_document_promises(service: Service, path: str, name: str) -> None:
    document = service.get("/openapi.json").json()
    promised = document["paths"][f"/api/v1{path}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert promised["$ref"].rpartition("/")[2] == name
    fields = document["components"]["schemas"][name]["properties"]
    assert fields.keys() == getattr(answers, name).model_json_schema()["properties"].keys()


def test_examples_are_what_they_are_examples_of(service: Service) -> None:
    document = service.get("/openapi.json").json()["paths"]
    for path, methods in document.items():
        for method, told in methods.items():
            for content in told.get("requestBody", {}).get("content", {}).values():
                assert content.get("examples"), (method, path)
    result = document["/api/v1/jobs/{job}/result"]["get"]["responses"]["200"]["content"]["application/json"]
    assert result["schema"]["discriminator"]["propertyName"] == "schema"
    for example in result["examples"].values():
        TypeAdapter(JobResult).validate_python(example["value"])


BELOW = {"arguments", "close", "get", "path", "post", "read"}  # what the others are made of


def test_the_client_asks_only_what_there_is(service: Service, tmp_path: Path) -> None:
    document = service.get("/openapi.json").json()["paths"]
    routes = [(method.upper(), re.sub("{[^}]+}", "[^/]+", path)) for path in document for method in document[path]]
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path))
        return httpx.Response(418)

    client = Client("http://localhost", transport=httpx.MockTransport(answer))
    arguments: dict[str, Any] = {
        "run": "run", "name": "new", "config": {}, "stop": {}, "job": 1, "id": 1, "models": ["one"], "base": "base",
        "reference": "one", "recipe": {}, "evaluate": {}, "path": "report.html", "kind": answers.Matrix, "runs": "run",
        "comparison": "run", "plan": {}, "individual": "1-1", "of": "run", "folder": "inner", "to": tmp_path / "x.tar",
    }  # fmt: skip
    mine = {name for kind in Client.__mro__ for name in vars(kind) if kind.__module__.startswith("service.client")}
    names = sorted(name for name in mine - BELOW if not name.startswith("_"))
    for name in names:
        method = getattr(client, name)
        wanted = inspect.signature(method).parameters.values()
        given = [arguments[one.name] for one in wanted if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
        with pytest.raises(ServiceError):
            _exhausted(method(*given))
    assert len(asked) == len(names) > 20
    for method, path in asked:
        assert [one for one in routes if one[0] == method and re.fullmatch(one[1], path)], (method, path)


def _exhausted(found: object) -> None:
    """Of what is iterated, nothing has been asked before."""
    if isinstance(found, Iterator):
        next(found)


def test_waiting_outlives_the_server() -> None:
    job = answers.Job(
        id=1, kind="plan", title="", state="done", run=None, arguments=[], device="cpu", slot=None, host="here",
        starts=1, created="", started=None, ended=None, error=None, hint=None, progress=None,
    )  # fmt: skip
    lost = [True, True]

    def answer(request: httpx.Request) -> httpx.Response:
        if lost:
            lost.pop()
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=job.content())

    with Client("http://localhost", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(TimeoutError, match="not heard of"):
            client.wait(1, 0)
        assert client.wait(1) == job
        assert not lost


OK = b"HTTP/1.1 200 OK\r\n"
JUNK = [
    b"", b"\0\1garbage\r\n\r\n", OK + b"Content-Length: 500\r\n\r\n{", OK + b"\r\n<html>",
    OK + b'Content-Length: 12\r\n\r\n{"schema": 1}', OK + b"Content-Encoding: gzip\r\n\r\nx",
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK)
def test_what_answers_as_no_service_does_is_told(junk: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.sendall(junk)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with Client(address) as client, pytest.raises(NoService, match=f"No service answers at {address}"):
            client.runs()
        thread.join()
    with Client(address) as client, pytest.raises(NoService, match="refused"):
        client.runs()


@pytest.mark.parametrize("address", ["", "localhost:8421", "ftp://x", "http://", "http://[::1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidConfig, match="is no address"):
        Client(address)


@pytest.mark.parametrize("token", ["", "with space", "line\nfeed", "zwölf"])
def test_a_token_that_no_server_has_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InvalidConfig) as found:
        Client("http://localhost", token)
    assert not token or token not in str(found.value)
