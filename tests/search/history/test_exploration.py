"""A run says how many partners there were to choose from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from search.history.exploration import explorations
from search.ledger.ledger import Ledger
from tests.conftest import MakeModel
from tests.search.runs import Scene, make_scene


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    return make_scene(make_model, tmp_path)


@pytest.mark.parametrize("pool", ["previous", "all"])
def test_what_is_told_live_is_what_is_exported(scene: Scene, pool: str) -> None:
    live: list[Mapping[str, Any]] = []
    strategy = {"variant": "random", "partner_pool": pool}
    scene.run(
        "run", scene.config(strategy=strategy), observer=lambda name, facts: live.append({"event": name, **facts})
    )
    rows = scene.export("run")["exploration"]
    assert [row["generation"] for row in rows] == [2, 3]
    told = [facts for facts in live if facts["event"] == "generation"]
    assert "partners" not in told[0]
    for facts, row in zip(told[1:], rows, strict=True):
        assert {key: facts[key] for key in ("generation", "best", "pool", "partners")} == {
            key: row[key] for key in ("generation", "best", "pool", "partners")
        }
    with Ledger.of_run(scene.folder / "run") as ledger:
        noted = [entry.facts for entry in ledger.diary() if entry.name == "generation"]
    assert [facts.get("partners") for facts in noted] == [None, *(row["partners"] for row in rows)]


def test_the_chosen_are_those_that_were_merged(scene: Scene) -> None:
    scene.run("run", scene.config(strategy={"variant": "kinship", "partner_pool": "all"}))
    export = scene.export("run")
    added = [person["parents"] for person in export["individuals"] if person["role"] == "exploration"]
    assert added == [[row["best"], row["chosen"]] for row in export["exploration"] if row["chosen"]]
    assert all(row["partners"] > 1 for row in export["exploration"])


def test_one_that_a_budget_cut_off_was_not_chosen(scene: Scene) -> None:
    founders = len(scene.founders)
    first = founders * (founders - 1) // 2
    config = scene.config(strategy={"variant": "kinship", "partner_pool": "all"}, stop={"evaluations": first + 1})
    scene.run("run", config)
    (row,) = scene.export("run")["exploration"]
    assert (row["generation"], row["chosen"]) == (2, None)
    assert row["partners"] > 0


@pytest.mark.parametrize("strategy", [{"variant": "vanilla"}, {"name": "pairs"}])
def test_other_searches_add_no_partner(scene: Scene, strategy: dict[str, Any]) -> None:
    config = scene.config(strategy=strategy, stop={"generations": 2})
    scene.run("run", config)
    assert explorations(scene.records("run"), config) == []
