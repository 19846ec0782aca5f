"""`kinship tree` of models, as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pytest
from typer.testing import CliRunner, Result

from kinship.errors import InvalidConfig, OutputExists
from service.cli import app

MakeModel = Callable[..., Path]


def tree(*words: object) -> Result:
    return CliRunner().invoke(app, ["tree", *map(str, words)])


@pytest.fixture
def models(make_model: MakeModel) -> list[Path]:
    """A base, two fine-tunes, of which one says so."""
    base = make_model("base")
    found = [base, *(make_model(f"tune{seed}", seed=seed, base=base) for seed in (1, 2))]
    (base / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    (found[1] / "README.md").write_text(f"---\nlicense: mit\nbase_model: {base}\nbase_model_relation: finetune\n---\n")
    return found


def test_recorded_descent(models: list[Path], tmp_path: Path) -> None:
    result = tree(*models, "--recorded")
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    assert lines == [f"{models[0]}  (cc-by-nc-4.0)", f"└─ {models[1]}  (finetune; mit)", str(models[2])]
    assert "is under mit; its ancestors are under cc-by-nc-4.0" in " ".join(result.stderr.split())
    told = json.loads(tree(*models, "--recorded", "--json").stdout)
    assert told["schema"] == "kinship.family/2"
    assert [(edge["parent"], edge["child"]) for edge in told["edges"]] == [(str(models[0]), str(models[1]))]
    assert [finding["kind"] for finding in told["findings"]] == ["licence"]


def test_the_base_has_a_role_and_so_a_row_of_its_own(models: list[Path]) -> None:
    told = json.loads(tree(*models, "--recorded", "--base", models[0], "--json").stdout)
    assert [node.get("role") for node in told["nodes"]] == ["base", None, None]


def test_recorded_and_recovered_are_one_tree(models: list[Path]) -> None:
    result = tree(*models, "--recorded", "--recover", "--base", models[0], "--json")
    assert result.exit_code == 0, result.exception
    told = json.loads(result.stdout)
    edges = {(edge["parent"], edge["child"]): edge for edge in told["edges"]}
    assert edges[str(models[0]), str(models[1])]["sources"] == ["README.md", "weights"]
    assert edges[str(models[0]), str(models[2])]["sources"] == ["weights"]
    assert {node["family"] for node in told["nodes"]} == {"family 1"}


def test_an_index_remembers_what_recovery_sketched(models: list[Path], tmp_path: Path) -> None:
    index = tmp_path / "index.sqlite"
    plain = json.loads(tree(*models, "--recover", "--json").stdout)
    for node in plain["nodes"]:
        node |= {"nearest": None, "independence": None}  # are told from the weights themselves
    assert json.loads(tree(*models, "--recover", "--index", index, "--json").stdout) == plain
    listed = CliRunner().invoke(app, ["index", "list", str(index)])
    assert listed.stdout.split() == sorted(map(str, models))
    assert isinstance(tree(*models, "--recorded", "--index", index).exception, InvalidConfig)


def test_every_format(models: list[Path], tmp_path: Path) -> None:
    outputs = [tmp_path / f"tree{suffix}" for suffix in (".html", ".png", ".svg", ".json", ".graphml", ".mmd")]
    options = [word for path in outputs for word in ("--out", path)]
    result = tree(*models, "--recorded", *options)
    assert result.exit_code == 0, result.exception
    assert nx.read_graphml(tmp_path / "tree.graphml").number_of_edges() == 1
    assert json.loads((tmp_path / "tree.json").read_text())["schema"] == "kinship.family/2"
    assert "flowchart" in (tmp_path / "tree.mmd").read_text()
    assert all(path.stat().st_size > 50 for path in outputs)
    assert isinstance(tree(*models, "--recorded", *options).exception, OutputExists)
    assert tree(*models, "--recorded", *options, "--force").exit_code == 0


def test_dendrograms_for_tree_programs(models: list[Path], tmp_path: Path) -> None:
    tips = models[1:]
    result = tree(*tips, "--base", models[0], "--joining", "nj", "--out", tmp_path / "tree.nwk")
    assert result.exit_code == 0, result.exception
    assert result.stdout.strip() == (tmp_path / "tree.nwk").read_text().strip()
    assert all(str(tip) in result.stdout for tip in tips)
    told = json.loads(tree(*tips, "--base", models[0], "--json").stdout)
    assert told["newick"].endswith(";")
    refused = tree(*tips, "--base", models[0], "--joining", "nj", "--out", tmp_path / "tree.png")
    assert isinstance(refused.exception, InvalidConfig)
    assert isinstance(tree(*tips, "--base", models[0], "--out", tmp_path / "tree.html").exception, InvalidConfig)
    assert isinstance(tree(*tips).exception, InvalidConfig)


def test_a_run_is_not_asked_for_records_or_weights(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"")
    outcome = tree(tmp_path, "--recorded")
    assert isinstance(outcome.exception, InvalidConfig)
    assert "whose lineage is in its ledger" in outcome.exception.message
