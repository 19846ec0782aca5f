"""Hostile requests, and what each of them got: a refusal in the one shape, and never what it was after."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from kinship.errors import InvalidConfig
from service.http.settings import ServiceSettings
from tests.service.http.conftest import API, Reply, Service, serving

UP = "..%2f..%2fsecret%2fconfig.json"
MATRIX = {"models": ["one", "two"], "base": "base"}
RUN = {"base": "base", "founders": ["one", "two"], "evaluate": {"tasks": ["t"]}}

PLAN = {
    "base": "base", "cells": {"a": {"model": "one"}, "b": {"model": "two"}}, "methods": ["linear"],
    "evaluate": {"tasks": ["a", "b"]},
}  # fmt: skip


def matrix(**changes: object) -> bytes:
    return json.dumps(MATRIX | changes).encode()


def run(**changes: object) -> bytes:
    return json.dumps({"name": "new", "config": RUN | changes}).encode()


PATHS = [
    f"/runs/{UP}", "/runs/../../secret", "/runs/%2e%2e/export", "/runs/~1..~1secret/export", "/runs/%00",
    f"/runs/run/artefacts/{UP}", "/runs/run/artefacts/../../../secret/config.json",
    "/runs/run/artefacts/link/config.json", "/runs/run/artefacts//etc/passwd", "/runs/run/artefacts/%2fetc%2fpasswd",
    "/runs/run/artefacts/.lock", "/runs/run/artefacts/ledger.sqlite", "/runs/run/artefacts/..%5c..%5csecret",
    "/runs/run/artefacts/a%00b", "/runs/run/individuals/..%2f..", "/runs/run/individuals/nobody/recipe",
    f"/runs/run/archives/{UP}", "/runs/run/archives/link", "/runs/run/archives/../../secret", "/runs/run/archives/.",
    "/runs/run/archives/%2fetc", "/jobs/1/archives/..", f"/comparisons/{UP}", "/comparisons/run",
    f"/jobs/1/artefacts/{UP}", "/jobs/999999", "/jobs/999999/log", "/static/../../secret", "/nothing",
]  # fmt: skip
QUERIES = [
    "/jobs/-1", "/jobs/99999999999999999999", "/jobs/1e3", "/runs/run/individuals?most=0",
    "/runs/run/individuals?most=1000000", "/runs/run/individuals?after=nobody", "/runs/run/individuals?order=drop",
    "/runs/run/events?after=-1", "/runs/run/events?after=1e99", "/compared-runs?run=run", "/models/facts",
    f"/models/facts?reference={'x' * 5000}",
]  # fmt: skip
REFERENCES = [
    "../secret", "/etc", "~/", "~root/.ssh", "linked", "mixed", "one/../../secret", "base+../secret", "../secret+one",
    "file:///etc", "a\0b", "x" * 5000, "--out=/tmp/x", "one/../../nowhere",
]  # fmt: skip
BODIES = [
    ("/kinship/matrices", b"{"), ("/kinship/matrices", b"\xff\xfe"), ("/kinship/matrices", b"[" * 100_000),
    ("/kinship/matrices", b"null"), ("/kinship/matrices", b""), ("/kinship/matrices", matrix(models=[])),
    ("/kinship/matrices", matrix(unknown=1)), ("/kinship/matrices", matrix(metric="x")),
    ("/kinship/advice", matrix(scores="../secret/config.json")), ("/kinship/advice", matrix(scores="/etc/passwd")),
    ("/kinship/advice", matrix(scores="postgresql://elsewhere/x#run")), ("/kinship/matrices", matrix(rank=10**30)),
    ("/runs", run(evaluate={"functions": [{"function": "os:system"}]})),
    ("/runs", run(evaluate={"tasks": ["t"], "written": {"serve": ["sh"], "url": "x"}})),
    ("/runs", run(evaluate={"tasks": ["t"], "allow_code": True})), ("/runs", run(evaluate={"tasks": ["../../x"]})),
    ("/runs", run(evaluate={"tasks": ["t"], "task_path": "../secret"})),
    ("/runs", run(evaluate={"perplexity": [{"file": "/etc/passwd"}]})), ("/runs", run(base="../secret")),
    ("/runs", run(workers={"kind": "ray", "address": "elsewhere:1"})),
    ("/runs", b'{"name": "../up", "config": {}}'), ("/runs", json.dumps({"name": "run", "config": RUN}).encode()),
    ("/merges", b'{"name": "m", "recipe": {"merge_method": "linear", "models": [{"model": "../secret"}]}}'),
    ("/merges", json.dumps({"name": "m", "recipe": {"merge_method": "regmean", "data": {"file": "/etc/passwd"},
                            "models": [{"model": "one"}, {"model": "two"}]}}).encode()),
    ("/comparisons", json.dumps({"name": "new", "plan": PLAN | {"base": "../secret"}}).encode()),
    ("/comparisons", json.dumps({"name": "../up", "plan": PLAN}).encode()),
    ("/comparisons", json.dumps({"name": "run", "plan": PLAN, "extend": True}).encode()),
    ("/comparisons", json.dumps({"name": "new", "plan": PLAN | {"data": {"statistics": "/tmp/x"}}}).encode()),
    ("/runs/run/individuals/..%2f../model", b""), ("/comparisons/nobody/resume", b""),
    ("/merges", b'{"name": ".hidden", "recipe": {}}'), ("/runs/run/resume", b""), ("/runs/nobody/pause", b""),
]  # fmt: skip


def refused(reply: Reply) -> None:
    """In the one shape, with the headers of every response, and telling nothing."""
    assert 400 <= reply.status < 500, (reply.status, reply.body)
    assert {"schema", "code", "message", "hint"} == reply.json().keys()
    assert reply.json()["message"]
    assert b"hidden" not in reply.body
    assert b"root:" not in reply.body
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]


def test_nothing_is_found_by_a_wrong_path(service: Service) -> None:
    for path in PATHS:
        reply = service.ask("GET", f"{API}{path}")
        refused(reply)
        assert reply.status == 404, path
    for path in QUERIES:
        reply = service.ask("GET", f"{API}{path}")
        refused(reply)
        assert reply.status in {404, 422}, path


def test_no_reference_leads_out(service: Service) -> None:
    for reference in REFERENCES:
        for body in (matrix(models=[reference]), matrix(base=reference)):
            reply = service.ask("POST", f"{API}/kinship/matrices", body)
            refused(reply)
            assert reply.status in {403, 422}, reference
        refused(service.ask("GET", f"{API}/models/facts?reference={quote(reference)}"))
    assert service.get("/jobs").json()["jobs"] == []


def test_whether_something_is_there_outside_is_not_told(service: Service) -> None:
    there, missing = (service.post("/models", {"reference": f"../{name}"}) for name in ("secret", "nowhere"))
    assert there.status == missing.status == 403
    assert there.json()["message"].replace("secret", "nowhere") == missing.json()["message"]


def test_no_body_breaks_anything(service: Service) -> None:
    for path, body in BODIES:
        refused(service.ask("POST", f"{API}{path}", body))
    assert service.get("/jobs").json()["jobs"] == []
    large = service.ask("POST", f"{API}/kinship/matrices", b"{}", {"Content-Length": str(2 << 20)})
    assert (large.status, large.json()["code"]) == (413, "too_large")
    refused(large)
    refused(service.ask("POST", f"{API}/kinship/matrices", matrix(), {"Content-Type": "text/plain"}))
    for method in ("DELETE", "PUT", "PATCH", "TRACE"):
        reply = service.ask(method, f"{API}/health")
        refused(reply)
        assert reply.status == 405


def test_who_may_write(service: Service) -> None:
    own = f"http://127.0.0.1:{service.port}"
    for headers in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://127.0.0.1:{service.port + 1}"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": own},
    ):  # fmt: skip
        reply = service.ask("POST", f"{API}/models", b'{"reference": "one"}', headers)
        refused(reply)
        assert reply.status == 403, headers
        assert service.ask("DELETE", f"{API}/runs/run", headers=headers).status == 403
    for headers in ({}, {"Origin": own}, {"Sec-Fetch-Site": "same-origin", "Origin": "http://proxy.example"}):
        assert service.ask("POST", f"{API}/models", b'{"reference": "one"}', headers).status == 200


def test_by_which_names_it_is_called(service: Service) -> None:
    for host in (
        "evil.example",
        f"evil.example:{service.port}",
        "127.0.0.1.evil.example",
        "",
        "a@localhost",
        "[",
        "x:y",
    ):
        reply = service.ask("GET", f"{API}/health", headers={"Host": host})
        refused(reply)
        assert reply.status == 421, host
    for host in ("localhost", "LOCALHOST:1", f"127.0.0.1:{service.port}", "[::1]:80"):
        assert service.ask("GET", f"{API}/health", headers={"Host": host}).status == 200, host


def test_the_wire(service: Service) -> None:
    """What no client would send: a flood of headers, two hosts, a body that does not come, no HTTP at all."""
    head = f"GET {API}/health HTTP/1.1\r\nHost: localhost\r\n"
    for text in (head + "X: " + "a" * 70_000, head + "Host: evil.example\r\n\r\n", "\x00\x01\x02\r\n\r\n"):
        assert _wire(service, text.encode()).split(b" ")[1][:1] == b"4"
    slow = (
        f"POST {API}/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    )
    assert b" 408 " in _wire(service, slow.encode())
    assert service.get("/health").status == 200


def _wire(service: Service, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as wire:
        wire.sendall(sent)
        found = b""
        until = time.monotonic() + 20
        while b"\r\n" not in found and time.monotonic() < until:
            part = wire.recv(65536)
            if not part:
                break
            found += part
        return found


def test_ranges(service: Service) -> None:
    path = "/runs/run/artefacts/export.json"
    assert (service.get(path, Range="bytes=2-4").body, service.get(path).body) == (b"234", b"0123456789")
    assert service.get(path, Range="bytes=2-4").status == 206
    refused(service.get(path, Range="bytes=99-"))
    for value in ("bytes=4-2", "lines=1-2", "bytes=-", "bytes=" + ",".join(f"{i}-{i}" for i in range(5000))):
        reply = service.get(path, Range=value)
        assert reply.status in {200, 206, 400, 416}, value[:20]
        assert len(reply.body) < 100_000
    tag = service.get(path).headers["etag"]
    assert service.get(path, If_Range=tag, Range="bytes=0-0").body == b"0"
    assert service.get("/runs/run/artefacts/report.html").headers["content-disposition"].startswith("attachment")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Service]:
    yield from serving(ServiceSettings(tmp_path, port=0, token="a-long-secret"))


def test_the_token(guarded: Service, capfd: pytest.CaptureFixture[str]) -> None:
    for headers in (
        {}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer a-long-secret2"},
        {"Authorization": "Basic a-long-secret"}, {"Cookie": "kinship_token=a-long-secret"},
        {"Authorization": "Bearer \xff"},
    ):  # fmt: skip
        for path in (f"{API}/health", f"{API}/runs", f"{API}/openapi.json", "/", "/nothing", f"{API}/health?token=x"):
            reply = guarded.ask("GET", path, headers=headers)
            refused(reply)
            assert reply.status == 401
    assert guarded.get("/health", Authorization="Bearer a-long-secret").status == 200
    assert guarded.ask("POST", f"{API}/models?token=a-long-secret", b"{}").status == 401
    reply = guarded.ask("GET", f"{API}/runs?token=a-long-secret&x=1")
    assert (reply.status, reply.headers["location"]) == (303, f"{API}/runs?x=1")
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "a-long-secret" not in cookie
    assert guarded.get("/runs", Cookie=cookie.partition(";")[0]).status == 200
    away = guarded.ask("GET", "//evil.example/?token=a-long-secret")
    assert not away.headers.get("location", "/").startswith("//")
    assert "a-long-secret" not in "".join(capfd.readouterr())


def test_another_machine_needs_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "lab.example"):
        with pytest.raises(InvalidConfig, match="no token"):
            ServiceSettings(tmp_path, host=host)
    assert ServiceSettings(tmp_path, host="0.0.0.0", token="a-long-secret").names
    with pytest.raises(InvalidConfig, match="8 or more"):
        ServiceSettings(tmp_path, token="short")


@pytest.mark.parametrize(
    "given",
    [
        {"roots": (Path("/nowhere"),)}, {"hosts": ("a b",)}, {"hosts": ("a/b",)}, {"hosts": ("",)},
        *({"slots": (name,)} for name in ("", "gpu", "cuda", "cuda:\u00b2", "cuda:-1")),
    ],
)  # fmt: skip
def test_what_no_server_can_be_started_with(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig):
        ServiceSettings(tmp_path, **given)
