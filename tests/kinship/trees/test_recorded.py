"""Descent as model folders tell it."""

import json
from pathlib import Path

import pytest

from kinship.errors import InvalidConfig, MalformedCheckpoint, ReferenceNotFound
from kinship.trees.licences import findings
from kinship.trees.recorded import recorded_tree
from tests.kinship.hub_server import HubServer, Repo


def write(folder: Path, **files: str) -> str:
    folder.mkdir()
    for name, text in files.items():
        name = {"card": "README.md", "recipe": "mergekit_config.yml", "lineage": "lineage.json"}.get(name, name)
        (folder / name.replace("adapter", "adapter_config.json")).write_text(text)
    return str(folder)


def card(**head: object) -> str:
    return f"---\n{json.dumps(head)}\n---\n\n# A model\n"


def test_every_file_has_its_say(tmp_path: Path) -> None:
    base = write(tmp_path / "base", card=card(license="MIT"))
    lineage = write(
        tmp_path / "ours",
        card=card(base_model=[base, "org/two"], base_model_relation="merge", tags=["merge"]),
        recipe=f"merge_method: linear\nmodels:\n- model: {base}\n- model: org/two\n",
        lineage=json.dumps({"schema": "kinship.lineage/1", "parents": [{"model": base, "digest": "x"}]}),
    )
    adapter = write(tmp_path / "lora", adapter=json.dumps({"base_model_name_or_path": base}))
    tree = recorded_tree([base, lineage, adapter])
    assert set(tree.edges) == {(base, lineage), ("org/two", lineage), (base, adapter)}
    assert tree.edges[base, lineage] == {
        "kind": "merge",
        "sources": ["lineage.json", "mergekit_config.yml", "README.md"],
    }
    assert tree.edges["org/two", lineage]["sources"] == ["mergekit_config.yml", "README.md"]
    assert tree.edges[base, adapter] == {"kind": "lora", "sources": ["adapter_config.json"]}
    assert tree.nodes[base]["licence"] == "mit"
    assert [tree.nodes[id]["generation"] for id in (base, lineage, adapter, "org/two")] == [0, 1, 1, 0]
    assert tree.nodes["org/two"]["given"] is False


def best_of_a_search(folder: Path, base: str, *founders: str) -> str:
    parents = [{"model": one, "digest": "x"} for one in (base, *founders)]
    return write(folder, lineage=json.dumps({"schema": "kinship.lineage/2", "base": base, "parents": parents}))


def test_the_base_of_a_search_stands_above_its_founders(tmp_path: Path) -> None:
    best = best_of_a_search(tmp_path / "best", "org/base", "org/one", "org/two")
    tree = recorded_tree([best])
    assert {id: tree.nodes[id]["generation"] for id in tree} == {"org/base": 0, "org/one": 1, "org/two": 1, best: 2}
    assert tree.nodes["org/base"]["role"] == "base"
    assert tree.edges["org/base", "org/one"] == {"kind": "finetune", "sources": ["lineage.json"]}


def test_what_files_of_founders_and_base_say_goes_before_the_search(tmp_path: Path) -> None:
    base = write(tmp_path / "base", card=card(base_model="org/older"))
    best = best_of_a_search(tmp_path / "best", base, "org/one")
    tree = recorded_tree([base, best])
    assert set(tree.edges) == {("org/older", base), (base, best), ("org/one", best)}
    assert "role" not in tree.nodes[base]
    founder = write(tmp_path / "one", card=card(base_model="org/elsewhere"))
    best = best_of_a_search(tmp_path / "other", "org/base", founder, "org/two")
    assert set(recorded_tree([founder, best]).edges) == {
        ("org/elsewhere", founder), ("org/base", "org/two"), ("org/base", best), (founder, best), ("org/two", best),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("head", "kinds"),
    [
        ({"base_model": "org/a"}, {"org/a": "unknown"}),
        ({"base_model": "org/a", "base_model_relation": "finetune"}, {"org/a": "finetune"}),
        ({"base_model": "org/a", "base_model_relation": "adapter"}, {"org/a": "lora"}),
        ({"base_model": ["org/a"], "base_model_relation": "quantized"}, {"org/a": "quantized"}),
        ({"base_model": ["org/a", "org/b"]}, {"org/a": "merge", "org/b": "merge"}),
        ({"base_model": "org/a", "tags": ["merge"]}, {"org/a": "merge"}),
        ({"base_model": {"strange": 1}, "tags": 3, "license": ["a"]}, {}),
    ],
)
def test_model_cards(tmp_path: Path, head: dict[str, object], kinds: dict[str, str]) -> None:
    model = write(tmp_path / "model", card=card(**head))
    tree = recorded_tree([model])
    assert {parent: tree.edges[parent, model]["kind"] for parent in tree.predecessors(model)} == kinds


def test_recipes_within_recipes_and_slices(tmp_path: Path) -> None:
    recipe = """
merge_method: slerp
base_model: org/a
slices:
- sources:
  - {model: org/a, layer_range: [0, 1], parameters: {model: 1}}
  - {model: {model: {path: org/b}, lora: {path: org/c}}, layer_range: [0, 1]}
- sources:
  - model: {merge_method: linear, models: [{model: org/d}]}
    layer_range: [0, 1]
tokenizer: {tokens: {x: {source: {model: org/z}}}}
"""
    model = write(tmp_path / "model", recipe=recipe)
    assert list(recorded_tree([model]).predecessors(model)) == ["org/a", "org/b", "org/d"]


def test_one_folder_is_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "base", **{"config.json": "{}"})
    write(tmp_path / "child", card=card(base_model=str(tmp_path / "base")))
    (tmp_path / "link").symlink_to(tmp_path / "base")
    write(tmp_path / "other", card=card(base_model="./link"))
    tree = recorded_tree(["base", "child", "other"])
    assert set(tree.edges) == {("base", "child"), ("base", "other")}


def test_files_that_cannot_be_believed(tmp_path: Path) -> None:
    assert not recorded_tree([write(tmp_path / "a", card="---\n: [\n---\n")]).edges
    with pytest.raises(MalformedCheckpoint, match=r"mergekit_config\.yml is not valid YAML"):
        recorded_tree([write(tmp_path / "b", recipe=": [")])
    with pytest.raises(MalformedCheckpoint, match=r"lineage\.json is not valid JSON"):
        recorded_tree([write(tmp_path / "c", lineage="{")])
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, card=card(base_model=str(two)))
    write(two, card=card(base_model=str(one)))
    with pytest.raises(InvalidConfig, match="in a circle"):
        recorded_tree([str(one), str(two)])
    assert not recorded_tree([write(tmp_path / "self", card=card(base_model=str(tmp_path / "self")))]).edges
    with pytest.raises(ReferenceNotFound):
        recorded_tree([str(tmp_path / "nowhere")])


def test_of_the_hub_only_documents_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "a" * 40
    files = {"README.md": card(base_model="org/base", license="mit").encode(), "model.safetensors": b"x" * 1000}
    with HubServer() as hub:
        hub.repos["org/child"] = Repo({commit: files}, {"main": commit})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        tree = recorded_tree(["org/child"])
        assert not hub.sent["model.safetensors"]
    assert set(tree.edges) == {("org/base", "org/child")}


def test_what_is_no_model_is_left_out_and_said(tmp_path: Path) -> None:
    one = write(tmp_path / "one", **{"config.json": "{}"})
    bare = tmp_path / "bare.safetensors"
    bare.touch()
    facts = tmp_path / "family.json"
    facts.write_text("{}")
    tasks = write(tmp_path / "tasks", **{"add.yaml": "task: add"})
    tree = recorded_tree([str(facts), one, str(bare), tasks])
    assert list(tree) == [one, str(bare)]
    assert [(found.kind, found.id) for found in findings(tree)] == [
        ("no_model", str(facts)),
        ("no_model", tasks),
        ("unrecorded", one),
    ]
    with pytest.raises(InvalidConfig, match=r"family\.json is no model: a file, and not of weights"):
        recorded_tree([str(facts), tasks])


def test_merges_on_the_way_are_no_parents(tmp_path: Path) -> None:
    recipe = "name: 1-2\nmerge_method: linear\nmodels:\n- model: a\n- model: b\n---\nmerge_method: linear\nmodels:\n"
    child = write(tmp_path / "child", recipe=recipe + "- model: 1-2\n- model: c\n")
    assert set(recorded_tree([child]).predecessors(child)) == {"a", "b", "c"}
