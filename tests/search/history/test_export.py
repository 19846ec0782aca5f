import json
import re
import shutil
import socket
from pathlib import Path

import pytest

from kinship.errors import LedgerError
from search.history.export import export_run, to_json
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.running.coordinator import Search
from tests.search.runs import Scene, failing


def test_merge_gain_is_the_score_less_the_mean_of_the_parents(scene: Scene) -> None:
    scene.run("run", evaluator=scene.evaluator(failing("1-2")))
    individuals = {individual["id"]: individual for individual in scene.export("run")["individuals"]}
    values = {id: i["scores"]["search"]["value"] for id, i in individuals.items() if i["error"] is None}
    gains = 0
    for id, individual in individuals.items():
        if individual["error"] or not individual["parents"]:
            assert individual["merge_gain"] is None
            continue
        one, other = individual["parents"]
        assert individual["merge_gain"] == pytest.approx(values[id] - (values[one] + values[other]) / 2)
        gains += 1
    assert gains > 5


def test_best_are_those_with_the_best_search_scores(scene: Scene) -> None:
    scene.run("run", evaluator=scene.evaluator(contrary=True))
    export = scene.export("run")
    values = {i["id"]: i["scores"]["search"]["value"] for i in export["individuals"] if i["id"] != "base"}
    ranked = sorted(values, key=lambda id: (-values[id], id))  # equal scores by id
    assert export["best"] == ranked[0]
    assert export["best_founder"] == next(id for id in ranked if id in scene.founders)
    assert export["best_offspring"] == next(id for id in ranked if id not in scene.founders)
    gain = export["gain_over_best_founder"]["search"]
    assert gain["value"] == pytest.approx(values[export["best_offspring"]] - values[export["best_founder"]])
    assert set(export["gain_over_best_founder"]) == {"search", "held_out"}
    assert str(export["best_offspring"]) in export["verdict"]
    assert str(export["best_founder"]) in export["verdict"]
    assert set(export["best_offspring_recipe"]["models"][0]) == {"model", "parameters"}


def test_the_export_says_nothing_of_when_and_where(scene: Scene, tmp_path: Path) -> None:
    texts = []
    for place in ("here", "there"):
        root = tmp_path / place
        for path in (scene.base, *scene.founders.values()):
            shutil.copytree(path, root / path.name)
        config = scene.config(base="the-base", founders=["near", "kin", "far"])
        with Search(config, root / "run", root=root, evaluator=scene.evaluator()) as search:
            search.run()
            texts.append(to_json(export_run(search.ledger)))
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
    assert socket.gethostname() not in texts[0]
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", texts[0])


def test_json_is_canonical(scene: Scene) -> None:
    scene.run("run")
    text = scene.text("run")
    content = json.loads(text)
    assert content == scene.export("run")
    assert content["schema"] == "kinship.run/5"
    assert to_json(dict(reversed(content.items()))) == text
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"value": float("nan")})


def test_an_empty_ledger_has_no_export(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER_NAME)
    with pytest.raises(LedgerError, match="no run yet"):
        export_run(ledger)
    ledger.close()


def test_a_run_that_has_only_begun_has_one(scene: Scene) -> None:
    with Search(scene.config(), scene.folder / "run", evaluator=scene.evaluator()) as search:
        export = export_run(search.ledger)
    assert export["best"] is None
    assert export["individuals"] == []
    assert export["gain_over_best_founder"] == {}
