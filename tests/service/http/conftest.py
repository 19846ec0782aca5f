"""A server in a thread, over a workspace with a run and models; requests as they are, not as a client mends them."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from search.history.archive import archive, restore
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME, LedgerLocation, write_pointer
from service.http.serving import Server
from service.http.settings import ServiceSettings
from tests.conftest import SHAPES
from tests.search.runs import put_small_run

API = "/api/v1"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Service:
    server: Server
    folder: Path

    @property
    def port(self) -> int:
        return self.server.settings.port

    @property
    def address(self) -> str:
        return self.server.settings.address

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request, its path as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        given = {"Host": f"127.0.0.1:{self.port}"} | (headers or {})
        if body is not None:
            given = {"Content-Type": "application/json", "Content-Length": str(len(body))} | given
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        reply = Reply(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return reply

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask(
            "GET", f"{API}{path}", headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def post(self, path: str, content: object, **headers: str) -> Reply:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"{API}{path}", json.dumps(content).encode(), given)


def serving(settings: ServiceSettings) -> Iterator[Service]:
    ready = threading.Event()
    server = Server(settings, lambda settings: ready.set())
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # of a thread there are none
    thread = threading.Thread(target=server.serve_all, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield Service(server, settings.folder)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def make_workspace(place: Path, database: str | None = None) -> Path:
    """A finished run, three models, and something beside the workspace that must stay out of reach.

    database: URL of a Postgres one, where the run is kept instead of in a file.
    """
    folder = place / "workspace"
    (folder / "run").mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    base = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    for name, size in (("base", 0.0), ("one", 0.02), ("two", 0.02)):
        tensors = {key: part + size * torch.randn(part.shape, generator=generator) for key, part in base.items()}
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"model_type": "llama", "dtype": "float32"}')
    put_small_run(folder / "run")
    if database is not None:
        _move_to(database, folder / "run")
    (folder / "run" / "report.html").write_text("<p>report</p>")
    (folder / "run" / "export.json").write_text("0123456789")
    (place / "secret").mkdir()
    (place / "secret" / "config.json").write_text('{"password": "hidden"}')
    (folder / "run" / "link").symlink_to(place / "secret")
    (folder / "linked").symlink_to(place / "secret")
    (folder / "mixed").mkdir()
    (folder / "mixed" / "config.json").symlink_to(place / "secret" / "config.json")
    return folder


def _move_to(database: str, run: Path) -> None:
    with Ledger.of_run(run) as ledger:
        content = archive(ledger)
    place = LedgerLocation.parse(database, run.name)
    with Ledger(place) as ledger:
        restore(content, ledger)
    (run / LEDGER_NAME).unlink()
    write_pointer(run, place)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = make_workspace(tmp_path_factory.mktemp("service"))
    yield from serving(ServiceSettings(folder, port=0, body_seconds=1.0, most_queued=3))
