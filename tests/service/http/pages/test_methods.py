"""Comparisons of merge methods in pages and API: what is there, what is going on, and how one is started and ended."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from fastapi.testclient import TestClient

from search.comparison.store import NAME, Done, Store
from search.ledger.location import hold_folder
from service.answers import MethodComparison
from service.answers.method_comparison import FILE
from tests.service.http.pages.conftest import HOSTILE

SCORE = {"value": 0.5, "low": 0.4, "high": 0.6}
SCORES = {"held_in": SCORE, "unseen": SCORE}


def row(label: str, kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "label": label, "kind": kind, "method": label if kind == "method" else None, "tuned": False, "scores": SCORES,
        "versus_reference": SCORES, "cells": {"a": 0.5, HOSTILE: 0.5}, "chosen": {}, "nearest": {}, "error": None,
    } | changes  # fmt: skip


CONTENT: dict[str, Any] = {
    "plan": {}, "seeds": [0], "conditions": {}, "reference": "linear", "evaluation": None,
    "cells": {
        name: {
            "task": name, "metric": "acc", "held_in": name == "a", "skill": None, "domain": None, "model": None,
            "documents": {"search": 2, "held_out": 2},
        }
        for name in ("a", HOSTILE)
    },
    "rows": [row("base", "baseline"), row("linear", "method"), row(HOSTILE, "method"),
             row("broken", "method", scores={}, versus_reference={}, cells={}, error="It overflows.")],
    "rankings": {"held_in": ["linear", HOSTILE], "unseen": [HOSTILE, "linear"]},
    "agreement": {"untuned": {"value": -1.0, "low": None, "high": None, "methods": 2}},
    "sensitivity": [{"method": "linear", "parameter": "scale", "spread": {"held_in": 0.1, "unseen": 0.1},
                     "points": [{"value": value, "scores": {"held_in": 0.4, "unseen": 0.5}} for value in (0.5, 1)]}],
    "number": [{"method": "linear", "models": count, "orders": 1,
                "scores": {group: {"value": 0.5, "stderr": None} for group in SCORES}} for count in (1, 2)],
    "costs": [{"method": name, "merge": {"seconds": 0.1, "memory": None, "flops": None}, "statistics": None}
              for name in ("linear", HOSTILE)],
    "prerequisites": [{"method": name, "merge_method": "linear", "taxon": "basic", "base": False, "statistics": None,
                       "data": False, "tuning": [], "random": False} for name in ("linear", HOSTILE)],
    "findings": [{"finding": "It helps", "verdict": "agree", "told": "By 0.1."}],
}  # fmt: skip


@pytest.fixture
def compared(workspace: Path) -> Path:
    """A comparison that is done, and one that was stopped, in folders with names that are no markup."""
    done, stopped = workspace / f"{HOSTILE} compared", workspace / "stopped"
    for folder in (done, stopped):
        folder.mkdir()
        Store(folder / NAME).add("key", Done("identity"))
    (done / FILE).write_text(MethodComparison.model_validate(CONTENT).to_json())
    return workspace


def test_the_list_says_what_state_each_is_in(compared: Path, pages: TestClient) -> None:
    text = pages.get("/methods").text
    assert HOSTILE not in text
    assert ">finished</span>" in text
    assert ">interrupted</span>" in text
    lock = hold_folder(compared / "stopped")
    try:
        assert ">running</span>" in pages.get("/methods").text
        page = pages.get("/methods/stopped").text
        assert '<span id="arms">1</span> arms are done' in page
        assert '<p id="going">' in page
    finally:
        lock.release(force=True)


def test_a_comparison_is_shown_with_its_five_figures_and_no_markup_of_others(compared: Path, pages: TestClient) -> None:
    reply = pages.get(f"/methods/{quote(f'{HOSTILE} compared')}")
    assert reply.status_code == 200
    assert HOSTILE not in reply.text
    assert reply.text.count("<figure ") == 5
    for words in ("It overflows.", "It helps", "By 0.1."):
        assert words in reply.text


def test_what_is_not_there_or_damaged_is_said(compared: Path, pages: TestClient) -> None:
    assert pages.get("/methods/nothing").status_code == 404
    (compared / "stopped" / FILE).write_text("{")
    (compared / "stopped" / NAME).write_bytes(b"no database")
    assert pages.get("/methods").status_code == 200
    reply = pages.get("/methods/stopped")
    assert reply.status_code == 422
    assert "is no comparison of methods" in reply.text


API = "/api/v1/comparisons"
PLAN: dict[str, Any] = {
    "base": "base",
    "cells": {name: {"task": name, "model": name} for name in ("one", "two")},
    "evaluate": {"perplexity": [{"file": "base/config.json", "name": name} for name in ("one", "two")]},
    "methods": ["linear", "ties"],
}


def test_every_page_of_them_is_json_too(compared: Path, pages: TestClient) -> None:
    def plain(address: str) -> Any:
        reply = pages.get(address, headers={"Accept": "application/json"})
        assert reply.status_code == 200
        return reply.json()

    assert plain("/methods") == plain(API)
    done, stopped = (one["id"] for one in plain(API)["comparisons"])
    assert plain(f"/methods/{quote(done)}")["state"] == "finished"
    assert plain(f"/methods/{stopped}") | {"state": "interrupted", "arms": 1} == plain(f"{API}/{stopped}")
    found = MethodComparison.model_validate_json((compared / done / FILE).read_bytes())
    assert plain(f"{API}/{quote(done)}/result") == json.loads(found.to_json())
    assert pages.get(f"{API}/{stopped}/result").status_code == 409


def test_one_is_started_from_the_form_paused_resumed_and_deleted(compared: Path, pages: TestClient) -> None:
    form = pages.get("/new/methods?base=base&model=one&model=two").text
    assert "task_arithmetic" in form
    assert "model: two" in form
    typed = {"name": "mine", "plan": yaml.safe_dump(PLAN)}
    reply = pages.post("/new/methods", data=typed, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/methods/mine"), reply.text
    assert ">queued</span>" in pages.get("/methods/mine").text
    (job,) = pages.get("/api/v1/jobs").json()["jobs"]
    assert (job["kind"], job["run"]) == ("compare", "mine")
    kept = yaml.safe_load((compared / "jobs" / str(job["id"]) / "plan.yml").read_text())
    assert kept["cells"] == PLAN["cells"]
    assert 'href="/methods/mine"' in pages.get("/jobs").text
    assert [run["id"] for run in pages.get("/api/v1/runs").json()["runs"] if run["id"] == "mine"] == []

    assert pages.post(f"{API}/mine/resume").status_code == 409
    assert pages.post(f"{API}/mine/pause").json()["state"] == "paused"
    assert pages.get(f"{API}/mine").json()["state"] == "paused"
    assert pages.post(f"{API}/mine/resume").json()["run"] == "mine"
    assert pages.delete(f"{API}/mine").status_code == 409
    assert pages.post(f"{API}/mine/cancel").json()["state"] == "cancelled"
    assert pages.get(f"{API}/mine").status_code == 404  # nothing of it was ever there


def test_an_earlier_one_is_extended_or_left_alone(compared: Path, pages: TestClient) -> None:
    taken = {"name": "stopped", "plan": PLAN}
    for body in (taken, taken | {"name": "run"}, taken | {"name": "run", "extend": True}, taken | {"extend": False}):
        assert pages.post(API, json=body).status_code == 409, body
    assert pages.post(API, json=taken | {"extend": True}).status_code == 202
    assert "name: two" in pages.get("/new/methods?from=stopped").text
    pages.post(f"{API}/stopped/cancel")
    assert pages.get(f"{API}/stopped").json()["state"] == "interrupted"
    assert pages.delete(f"{API}/stopped").status_code == 204
    assert not (compared / "stopped").exists()
    assert pages.get("/api/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"base": "../secret"}, 403), ({"multitask": "/etc"}, 403), ({"data": {"file": "/etc/passwd"}}, 403),
        ({"data": {"statistics": "../elsewhere"}}, 422), ({"methods": ["lineal"]}, 422), ({"cells": {}}, 422),
        ({"evaluate": {"functions": [{"function": "os:system"}]}}, 403), ({"unknown": 1}, 422),
        ({"cells": PLAN["cells"] | {"three": {"model": "one", "data": "../x"}}}, 403),
        ({"cells": PLAN["cells"] | {"three": {"model": "one", "same_data": "../x"}}}, 403),
    ],
)  # fmt: skip
def test_a_plan_that_may_not_be_is_refused_and_the_form_keeps_it(
    pages: TestClient, change: dict[str, Any], status: int
) -> None:
    plan = PLAN | change
    assert pages.post(API, json={"name": "mine", "plan": plan}).status_code == status
    reply = pages.post("/new/methods", data={"name": "mine", "plan": yaml.safe_dump(plan), "extend": "on"})
    assert reply.status_code == 422
    assert "linea" in reply.text
    assert 'value="mine"' in reply.text
    assert pages.get("/api/v1/jobs").json()["jobs"] == []
