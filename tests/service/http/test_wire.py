"""Hostile requests as bytes on the wire, which no client would send, and what each of them got.

Every answer is a refusal in the one shape, or one that is right; the server is there afterwards. They are a table in
docs/hostile-requests.md.
"""

import gzip
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio import BrokenResourceError
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.testclient import TestClient

from service.http import errors, wire
from tests.service.http.conftest import API, Service
from tests.service.http.test_safety import refused

HEALTH = f"{API}/health"
JSON = "Content-Type: application/json"


@dataclass(frozen=True)
class Answer:
    status: int
    head: str
    body: bytes


def sent(service: Service, data: bytes, *, patience: float = 20.0) -> Answer:
    """What came back until the server closed, or had sent a whole answer."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=patience) as connection:
        found = b""
        with suppress(ConnectionError):  # it had seen enough
            connection.sendall(data)
        with suppress(ConnectionError):
            while not _is_whole(found):
                part = connection.recv(65536)
                if not part:
                    break
                found += part
    if not found:
        return Answer(0, "", b"")
    head, _, body = found.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ")[1]), head.decode("latin-1"), body)


def _is_whole(found: bytes) -> bool:
    head, _, body = found.partition(b"\r\n\r\n")
    lengths = [line[16:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
    return bool(lengths) and len(body) >= int(lengths[0])


def get(path: str = HEALTH, *headers: str, version: str = "1.1", host: str | None = "localhost") -> bytes:
    lines = [f"GET {path} HTTP/{version}", *([f"Host: {host}"] if host is not None else []), *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def post(body: bytes, *headers: str, path: str = f"{API}/models", length: object = None) -> bytes:
    size = [] if length == "" else [f"Content-Length: {len(body) if length is None else length}"]
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", JSON, *size, *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, coding: str = "chunked") -> bytes:
    head = post(b"", f"Transfer-Encoding: {coding}", length="")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


ONE = b'{"reference": "one"}'
# What is sent, and the statuses that will do; 0: closed without a word. 200 and 304 are right answers.
REQUESTS: dict[str, tuple[bytes, set[int]]] = {
    # The first line
    "HTTP/1.0 without a Host": (get(version="1.0", host=None), {421}),
    "HTTP/1.1 without a Host": (get(host=None), {400}),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 421}),
    "HTTP/9.9": (get(version="9.9"), {200, 400}),
    "HTTP/0.9": (b"GET /\r\n\r\n", {400}),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n", {400}),
    "a line without end": (b"GET /" + b"a" * 70_000, {400}),
    "absolute-form target": (get(f"http://localhost{HEALTH}"), {404}),
    "absolute-form target of another host": (get("http://evil.example/"), {404}),
    "asterisk-form": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", {404, 405}),
    "authority-form": (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", {404, 405}),
    "unknown method": (get().replace(b"GET", b"BREW", 1), {405}),
    "method of 10,000 letters": (get().replace(b"GET", b"A" * 10_000, 1), {400, 405}),
    "method override": (get(HEALTH, "X-HTTP-Method-Override: DELETE"), {200}),
    "bytes beyond ASCII in the target": (get().replace(b"health", b"he\xffalth"), {400}),
    # Paths
    "%00": (get(f"{API}/runs/run%00"), {404}),
    "%00 in a query": (get(f"{API}/models/facts?reference=one%00"), {403, 422}),
    "double-encoded traversal": (get(f"{API}/runs/run/artefacts/%252e%252e%252f%252e%252e%252fsecret"), {404}),
    "overlong UTF-8 traversal": (get(f"{API}/runs/run/artefacts/%c0%ae%c0%ae/secret/config.json"), {404}),
    "broken percent": (get(f"{API}/runs/%zz%"), {404}),
    "line breaks in the path": (get(f"{API}/runs/a%0d%0aSet-Cookie:%20x=1"), {404}),
    "digits of another script": (get(f"{API}/jobs/%D9%A1"), {404, 422}),
    "dots without end": (get("/" + "../" * 5000 + "secret/config.json"), {404}),
    # Hosts and headers
    "two Hosts": (get(HEALTH, "Host: localhost"), {400, 421}),
    "two Hosts that differ": (get(HEALTH, "Host: evil.example"), {400, 421}),
    "Cyrillic Host": (get(host="loc\u0430lhost"), {400, 421}),
    "punycode Host": (get(host="xn--loclhost-2fg"), {421}),
    "full-width Host": (get(host="\uff4cocalhost"), {400, 421}),
    "Host with a dot at its end": (get(host="localhost."), {421}),
    "Host as a number": (get(host="2130706433"), {421}),
    "Host with credentials": (get(host="localhost@evil.example"), {421}),
    "Host with a space": (get(host="localhost evil.example"), {400, 421}),
    "X-Forwarded-Host": (get(HEALTH, "X-Forwarded-Host: evil.example"), {200}),
    "Origin: null": (post(ONE, "Origin: null"), {403}),
    "Origin that begins alike": (post(ONE, "Origin: http://localhost.evil.example"), {403}),
    "Origin with our name before @": (post(ONE, "Origin: http://localhost@evil.example"), {403}),
    "Origin that is no URL": (post(ONE, "Origin: http://["), {403}),
    "two Origins": (post(ONE, "Origin: http://localhost", "Origin: http://evil.example"), {403}),
    "a form of another site": (
        post(b"reference=one", "Sec-Fetch-Site: cross-site").replace(b"json", b"x-www-form-urlencoded"), {403},
    ),
    "cookies of 30 kB": (get(HEALTH, "Cookie: " + "a=b; " * 6000), {200, 400}),
    "one cookie of 60 kB": (get(HEALTH, "Cookie: a=" + "b" * 60_000), {200, 400}),
    "1,000 headers": (get(HEALTH, *(f"X-{number}: y" for number in range(1000))), {200, 400}),
    "a header without a colon": (get(HEALTH, "nothing"), {400}),
    "a header folded over lines": (get(HEALTH, "X: a\r\n b"), {200, 400}),
    "NUL in a header": (get(HEALTH, "X: a\0b"), {400}),
    "a space before the colon": (get(HEALTH, "Content-Length : 5"), {400}),
    "Upgrade: websocket": (get(HEALTH, "Connection: Upgrade", "Upgrade: websocket"), {200}),
    "Upgrade: h2c": (get(HEALTH, "Connection: Upgrade", "Upgrade: h2c"), {200}),
    "ETags without end": (get(f"{API}/runs", "If-None-Match: " + '"x", ' * 4000), {200, 400}),
    "bytes beyond ASCII in a key": (post(ONE, "Idempotency-Key: \u00e9", path=f"{API}/merges"), {422}),
    "a key of 300 letters": (post(ONE, "Idempotency-Key: " + "k" * 300, path=f"{API}/merges"), {422}),
    # Bodies
    "Content-Length: -1": (post(ONE, length=-1), {400}),
    "Content-Length: +20": (post(ONE, length="+20"), {400}),
    "Content-Length: 1e2": (post(ONE, length="1e2"), {400}),
    "two Content-Lengths": (post(ONE, "Content-Length: 3"), {400}),
    "Content-Length of 30 digits": (post(ONE, length="9" * 30), {400, 413}),
    "both length and chunks": (post(b"0\r\n\r\n", "Transfer-Encoding: chunked"), {400, 422}),
    "Transfer-Encoding: gzip, chunked": (chunked(ONE, coding="gzip, chunked"), {400, 501}),
    "Transfer-Encoding: identity": (chunked(ONE, coding="identity"), {400, 501}),
    "Transfer-Encoding: xchunked": (chunked(ONE, coding="xchunked"), {400, 501}),
    "two Transfer-Encodings": (chunked(ONE, coding="chunked\r\nTransfer-Encoding: identity"), {400, 501}),
    "a chunk of negative size": (post(b"-1\r\n\r\n", "Transfer-Encoding: chunked", length=""), {0, 400}),
    "a chunk of 2^68": (post(b"F" * 17 + b"\r\n", "Transfer-Encoding: chunked", length=""), {0, 400, 408, 413}),
    "chunks of more than is allowed": (chunked(*[b" " * 65536] * 20), {0, 413}),
    "a body that does not come": (post(b"", length=9), {408}),
    "Expect: 100-continue and nothing": (post(b"", "Expect: 100-continue", length=9), {100, 408}),
    "packed with gzip": (post(gzip.compress(b" " * 10_000_000), "Content-Encoding: gzip"), {400, 422}),
    "JSON in UTF-16": (post(ONE.decode().encode("utf-16"), "Accept-Charset: utf-16"), {200, 400, 422}),
    "half a surrogate": (post(rb'{"reference": "\ud800"}'), {422}),
    "NaN for a name": (post(b'{"reference": NaN}'), {422}),
    "a number of 10,000 digits": (post(b'{"reference": ' + b"9" * 10_000 + b"}"), {400, 422}),
    "lists 100,000 deep": (post(b"[" * 100_000 + b"]" * 100_000), {400, 422}),
    "__proto__": (post(b'{"reference": "one", "__proto__": {"admin": true}}'), {422}),
    "a name twice": (post(b'{"reference": "../secret", "reference": "../secret"}'), {403}),
    # Ranges and events
    "a range beyond the end": (get(f"{API}/runs/run/artefacts/export.json", "Range: bytes=99-"), {416}),
    "a range of 10^30": (get(f"{API}/runs/run/artefacts/export.json", f"Range: bytes=0-{10**30}"), {206}),
    "a range from 10^30": (get(f"{API}/runs/run/artefacts/export.json", f"Range: bytes={10**30}-"), {400, 416}),
    "a range of minus nothing": (get(f"{API}/runs/run/artefacts/export.json", "Range: bytes=-0"), {200, 206, 400, 416}),
    "2,000 ranges": (
        get(f"{API}/runs/run/artefacts/export.json", "Range: bytes=" + ",".join(["0-1"] * 2000)), {200, 206, 400, 416},
    ),
    "Last-Event-ID: 10^30": (get(f"{API}/runs/run/stream", f"Last-Event-ID: {10**30}"), {422}),
    "Last-Event-ID: -5": (get(f"{API}/runs/run/stream", "Last-Event-ID: -5"), {422}),
    "Last-Event-ID: 0x10": (get(f"{API}/runs/run/stream", "Last-Event-ID: 0x10"), {422}),
}  # fmt: skip


def test_no_bytes_get_anything_but_an_answer(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    wrong: dict[str, Answer] = {}
    for name, (data, statuses) in REQUESTS.items():
        answer = sent(service, data)
        told = answer.status < 400 or (
            answer.body.startswith(b'{"schema": "kinship.error/1", "code": ') and "frame-ancestors" in answer.head
        )
        told = told and "set-cookie" not in answer.head.lower() and b"hidden" not in answer.body
        if answer.status not in statuses or not told or len(answer.body) > 100_000:
            wrong[name] = answer
    assert not wrong
    assert service.get("/health").status == 200
    assert service.get("/jobs").json()["jobs"] == []
    assert "Traceback" not in "".join(capfd.readouterr())


def test_each_of_them_is_in_the_table_of_the_docs() -> None:
    text = (Path(__file__).parents[3] / "docs/hostile-requests.md").read_text(encoding="utf-8")
    assert [name for name in REQUESTS if f"| {name} |" not in text] == []


def drip(service: Service, *parts: bytes, pause: float) -> tuple[bytes, float]:
    """Send some bytes now and then; what came back, and after how long it was closed."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        found = b""
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                found += part
    return found, time.monotonic() - began


def test_a_head_that_comes_byte_by_byte_is_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.5)
    for before in (b"", get()):  # on a new connection, and on one that has asked before
        _, seconds = drip(service, before, *[bytes([byte]) for byte in b"GET / HTTP/1.1"], pause=0.1)
        assert seconds < 5
    assert sent(service, get()).status == 200


def test_a_body_that_comes_byte_by_byte_is_refused(service: Service) -> None:
    answer, seconds = drip(service, post(b"", length=20), *[b" "] * 15, pause=0.1)
    assert b" 408 " in answer
    assert seconds < 5


def test_who_leaves_in_the_middle_leaves_nothing_behind(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    for data in (post(ONE[:5], length=20), get(f"{API}/runs/run/stream"), get(f"{API}/runs/run/artefacts/export.json")):
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(data)
    assert service.get("/health").status == 200
    assert "Traceback" not in "".join(capfd.readouterr())


def test_who_leaves_while_an_event_is_on_its_way_is_no_failure() -> None:
    app = FastAPI()
    errors.install(app)

    @app.get("/stream", response_class=EventSourceResponse)
    async def stream() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(data="one")
        raise BrokenResourceError  # what the next one meets where nobody reads any more

    assert TestClient(app).get("/stream").status_code == 200  # it raises what the server would log


def _link_model(service: Service) -> None:
    shutil.copytree(service.folder / "one", service.folder / "late")
    assert service.post("/models", {"reference": "late"}).status == 200
    shutil.rmtree(service.folder / "late")
    (service.folder / "late").symlink_to(service.folder.parent / "secret")


def _link_file(service: Service) -> None:
    shutil.copytree(service.folder / "one", service.folder / "late")
    (service.folder / "late" / "config.json").unlink()
    (service.folder / "late" / "config.json").symlink_to(service.folder.parent / "secret" / "config.json")


@pytest.mark.parametrize("link", [_link_model, _link_file])
def test_a_link_made_after_a_model_was_registered(service: Service, link: Callable[[Service], None]) -> None:
    link(service)
    try:
        for reply in (
            service.get("/models/facts?reference=late"),
            service.post("/kinship/matrices", {"models": ["late", "two"], "base": "base"}),
        ):
            refused(reply)
            assert reply.status == 403
        assert b"hidden" not in service.get("/models").body
    finally:
        late = service.folder / "late"
        late.unlink() if late.is_symlink() else shutil.rmtree(late)


def test_an_artefact_that_became_a_link(service: Service) -> None:
    file = service.folder / "run" / "export.json"
    file.rename(file.with_suffix(".kept"))
    try:
        file.symlink_to(service.folder.parent / "secret" / "config.json")
        refused(service.get("/runs/run/artefacts/export.json"))
    finally:
        os.replace(file.with_suffix(".kept"), file)


def test_names_that_are_no_text(service: Service) -> None:
    """A folder whose name is not UTF-8, which no address could name, is passed over, and harms nobody else."""
    folder = os.fsencode(service.folder) + b"/m\xff"
    shutil.copytree(os.fsencode(service.folder / "one"), folder)
    try:
        time.sleep(2.1)  # until the workspace is looked through again
        assert {model["reference"] for model in service.get("/models").json()["models"]} >= {"base", "one", "two"}
        assert service.ask("GET", "/kinship", headers={"Accept": "text/html"}).status == 200
    finally:
        shutil.rmtree(folder)
