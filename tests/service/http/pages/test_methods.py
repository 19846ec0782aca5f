"""The pages of comparisons of merge methods: what is there, what is going on, and what names may not do."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
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
    "costs": [{"method": name, "merge": {"seconds": 0.1, "memory": None}, "statistics": None}
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
