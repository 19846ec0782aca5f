import json
from pathlib import Path
from typing import Any

import pytest

from search.history.comparisons import score_of
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from tests.conftest import MakeModel
from tests.search.runs import Scene, make_scene


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    return make_scene(make_model, tmp_path)


def compared(scene: Scene, name: str, **changes: Any) -> list[dict[str, Any]]:
    scene.run(name, scene.config(**changes))
    found: list[dict[str, Any]] = scene.export(name)["comparisons"]
    return found


def test_the_best_offspring_meets_founder_parents_and_base(scene: Scene) -> None:
    rows = compared(scene, "run")
    export = scene.export("run")
    best = export["best_offspring"]
    people = {person["id"]: person for person in export["individuals"]}
    own = [row for row in rows if row["individual"] == best]
    assert own == rows[: len(own)]
    assert own[0]["relation"] == "best founder"
    assert own[0]["versus"] == export["best_founder"]
    parents = [row["versus"] for row in own if row["relation"] == "parent"]
    assert parents == [id for id in people[best]["parents"] if id != export["best_founder"]]
    assert [row["versus"] for row in own if row["relation"] == "base"] == ["base"]
    for split, gain in export["gain_over_best_founder"].items():
        found = own[0]["splits"][split]
        assert (found["value"], found["stderr"]) == pytest.approx((gain["value"], gain["stderr"]))
        assert found["low"] <= found["value"] <= found["high"]
        assert found["level"] == 0.95
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_differences_are_in_what_the_search_selects_on(scene: Scene) -> None:
    (row, *_) = compared(scene, "run", aggregate={"kind": "normalised"})
    with Ledger(scene.folder / "run" / LEDGER_NAME) as ledger:
        facts, records = ledger.facts(), {record.id: record for record in ledger.records()}
        assert facts is not None
        means = {id: score_of(ledger, facts, records[id], "search").value for id in scene.founders}
    spread = max(means.values()) - min(means.values())
    gain = records[row["individual"]].scores["search"].value - records[row["versus"]].scores["search"].value
    assert row["splits"]["search"]["value"] == pytest.approx(gain)
    assert gain == pytest.approx(scene.export("run")["gain_over_best_founder"]["search"]["value"])
    plain = compared(scene, "plain")[0]
    assert row["individual"] == plain["individual"]
    for key in ("value", "stderr", "low", "high"):
        assert row["splits"]["search"][key] == pytest.approx(plain["splits"]["search"][key] / spread)
