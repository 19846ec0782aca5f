"""The best offspring as people get it: a folder that tells its true parents, and a recipe that makes it anywhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from kinship.trees.licences import findings
from kinship.trees.recorded import recorded_tree
from merging.merge import write_merge
from merging.recipe.schema import load_recipe, parse_recipe
from search.history.descent import renamed
from search.ledger.records import best_offspring
from search.running.coordinator import Search
from service.pages.run_folder import write_best
from tests.faults.test_mutants import make_adapter
from tests.search.conftest import scene as scene
from tests.search.runs import LINEAR, SLERP, Scene

METHODS: dict[str, dict[str, Any]] = {
    "linear": LINEAR,
    "breadcrumbs": {"method": "breadcrumbs", "parameters": {"density": 0.8, "gamma": 0.1, "weight": 0.7}},
    "slerp": {"method": "slerp", "parameters": {"t": 0.4}},
    "ties": {"method": "ties", "parameters": {"density": 0.9, "weight": 0.5}},
    "slerp by layer": SLERP,
    "dare_ties": {"method": "dare_ties", "parameters": {"density": 0.9, "weight": 0.5}},
}


def written(scene: Scene, name: str, generation: int) -> tuple[Path, list[str]]:
    """A search's best offspring of a generation, written; and the founders it comes from, read off the ledger."""
    folder = scene.folder / name
    config = scene.config(merge=METHODS[name], stop={"generations": generation})
    with Search(config, folder, evaluator=scene.evaluator()) as search:
        search.run()
        best = best_offspring(record for record in search.records if record.generation == generation)
        assert best is not None
        write_best(search, best, folder, Path())
        records = {record.id: record for record in search.records}
        people = [best.id]
        for id in people:
            people += [parent for parent in records[id].parents if parent not in people]
    return folder, [id for id in scene.founders if id in people]


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_lineage_card_and_tree_name_its_parents_alone(scene: Scene, method: str, generation: int) -> None:
    for name, path in {"base": scene.base, **scene.founders}.items():
        licence = "gpl-3.0" if name == "far" else "apache-2.0"
        (path / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    folder, founders = written(scene, method, generation)
    assert generation == 2 or len(founders) == 2
    parents = ([] if method.startswith("slerp") else [str(scene.base)]) + [
        str(scene.founders[name]) for name in founders
    ]
    best = folder / "best-offspring"
    lineage = json.loads((best / "lineage.json").read_text())
    assert [parent["model"] for parent in lineage["parents"]] == parents
    card = yaml.safe_load((best / "README.md").read_text().split("---")[1])
    assert card["base_model"] == parents
    assert card["license"] == ("other" if "far" in founders else "apache-2.0")
    tree = recorded_tree([str(best), *map(str, scene.founders.values()), str(scene.base)])
    assert sorted(tree.predecessors(str(best))) == sorted(parents)
    assert bool([found for found in findings(tree) if found.kind == "licence"]) == ("far" in founders)


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_makes_it_of_base_and_founders(
    scene: Scene, method: str, generation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = written(scene, method, generation)
    recipe = load_recipe(folder / "best-offspring.yml")
    assert set(recipe.references) <= {str(path) for path in (scene.base, *scene.founders.values())}
    if method == "dare_ties" and generation > 1:
        return  # each child has a seed of its own, and a recipe one for all: see the next test
    steps = json.loads((folder / "best-offspring/lineage.json").read_text())["ancestry"]
    monkeypatch.chdir(tmp_path)
    again = load_file(write_merge(recipe, tmp_path / "again", seed=steps[-1]["seed"]) / "model.safetensors")
    for name, tensor in load_file(folder / "best-offspring/model.safetensors").items():
        np.testing.assert_array_equal(tensor, again[name], err_msg=name)


def test_the_steps_make_what_was_drawn_at_random(scene: Scene, tmp_path: Path) -> None:
    folder, _ = written(scene, "dare_ties", 2)
    steps = json.loads((folder / "best-offspring/lineage.json").read_text())["ancestry"]
    places = {"base": str(scene.base)} | {name: str(path) for name, path in scene.founders.items()}
    assert len(steps) > 1
    for step in steps:
        recipe = renamed(parse_recipe(step["recipe"]), places)
        places[step["id"]] = str(write_merge(recipe, tmp_path / step["id"], seed=step["seed"]))
    again = load_file(Path(places[steps[-1]["id"]]) / "model.safetensors")
    for name, tensor in load_file(folder / "best-offspring/model.safetensors").items():
        np.testing.assert_array_equal(tensor, again[name], err_msg=name)


@pytest.mark.parametrize("coefficients", ["layers", "modules"])
def test_coefficients_by_group_are_in_the_recipe(scene: Scene, coefficients: str, tmp_path: Path) -> None:
    strategy = {"name": "random", "coefficients": coefficients, "batch": 2}
    folder = scene.folder / "run"
    config = scene.config(strategy=strategy, stop={"evaluations": 2})
    with Search(config, folder, evaluator=scene.evaluator()) as search:
        search.run()
        best = best_offspring(search.records)
        assert best is not None
        write_best(search, best, folder, Path())
    made = write_merge(load_recipe(folder / "best-offspring.yml"), tmp_path / "again")
    again = load_file(made / "model.safetensors")
    for name, tensor in load_file(folder / "best-offspring/model.safetensors").items():
        np.testing.assert_array_equal(tensor, again[name], err_msg=name)


def test_adapters_are_named_wherever_the_recipe_lies(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Founders written relative to the run file's folder, each an adapter on the base."""
    root = scene.base.parent
    founders = {}
    for name, size in (("one", 0.1), ("two", 0.2), ("three", 0.3)):
        adapter = root / f"adapter-{name}"
        adapter.mkdir()
        make_adapter(adapter, scene.base)
        weights = load_file(adapter / "adapter_model.safetensors")
        save_file({key: size * part for key, part in weights.items()}, adapter / "adapter_model.safetensors")
        founders[name] = f"{scene.base.name}+{adapter.name}"
    config = scene.config(base=scene.base.name, founders=founders, merge=LINEAR, stop={"generations": 2})
    folder = root / "run"
    with Search(config, folder, root=root, evaluator=scene.evaluator()) as search:
        search.run()
        best = best_offspring(search.records)
        assert best is not None
        write_best(search, best, folder, root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(folder / "best-offspring.yml")
    assert {str(root / name) in reference for reference in recipe.references for name in (scene.base.name,)} == {True}
    assert any("+" in reference for reference in recipe.references)
    again = load_file(write_merge(recipe, elsewhere / "again") / "model.safetensors")
    for name, tensor in load_file(folder / "best-offspring/model.safetensors").items():
        np.testing.assert_array_equal(tensor, again[name], err_msg=name)


def test_documents_are_what_mergekit_multi_reads(scene: Scene) -> None:
    """Each names models on disk or documents before it, the last has no name, and none lies under another."""
    folder, _ = written(scene, "ties", 2)
    documents = list(yaml.safe_load_all((folder / "best-offspring.yml").read_text()))
    names = [document.get("name") for document in documents]
    assert len(names) > 1
    assert names[-1] is None
    known = {str(path) for path in (scene.base, *scene.founders.values())}
    for document, name in zip(documents, names, strict=True):
        assert {document["base_model"], *(entry["model"] for entry in document["models"])} <= known
        known.add(name)
