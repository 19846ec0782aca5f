"""Strategies other than Top-k greedy merging in real runs: resumed, they end as if never interrupted."""

from typing import Any

import pytest

from tests.search.runs import Interrupted, Scene, interrupting


@pytest.mark.parametrize(
    "strategy",
    [{"name": "auto"}, {"name": "optuna"}, {"name": "soup", "scale_steps": 3}, {"name": "niches"}, {"name": "swarm"}],
    ids=lambda s: s["name"],
)
def test_an_interrupted_run_ends_like_a_calm_one(scene: Scene, strategy: dict[str, Any]) -> None:
    config = scene.config(strategy=strategy, stop={"evaluations": 10})
    scene.run("calm", config)
    with pytest.raises(Interrupted):
        scene.run("rough", config, scene.evaluator(interrupting(8)))
    scene.run("rough", config)
    assert scene.text("rough") == scene.text("calm")
    export = scene.export("calm")
    children = [individual for individual in export["individuals"] if individual["generation"]]
    assert 3 <= len(children) <= 10
    assert {id for child in children for id in child["parents"]} - {child["id"] for child in children} <= {
        *scene.founders
    }


def test_auto_does_better_than_topk_in_as_many_evaluations(scene: Scene) -> None:
    best = []
    for strategy in ({"name": "auto"}, {"variant": "vanilla"}):
        name = str(strategy)
        scene.run(name, scene.config(strategy=strategy, stop={"evaluations": 12}))
        export = scene.export(name)
        best.append(max(i["scores"]["search"]["value"] for i in export["individuals"] if i["generation"]))
    assert best[0] >= best[1]
