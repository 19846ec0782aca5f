"""`kinship matrix` by groups, and what it says of vocabularies that differ."""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from kinship.measures.matrix import KinshipMatrix
from service.cli import app

MakeModel = Callable[..., Path]
SHAPES = {"model.embed_tokens.weight": (32, 8), "model.layers.0.mlp.up_proj.weight": (8, 8),
          "model.layers.1.mlp.up_proj.weight": (8, 8)}  # fmt: skip


def kinship(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture
def models(make_model: MakeModel) -> list[Path]:
    base = make_model("base", shapes=SHAPES)
    return [base, *(make_model(f"tune{seed}", seed=seed, base=base, shapes=SHAPES) for seed in (1, 2, 3, 4))]


@pytest.mark.parametrize("by", ["layer", "module", "tensor"])
def test_groups_in_every_format(models: list[Path], tmp_path: Path, by: str) -> None:
    files = {end: tmp_path / f"by.{end}" for end in ("json", "npz", "csv", "html")}
    if by == "layer":
        files |= {end: tmp_path / f"by.{end}" for end in ("png", "svg")}
    outputs = [word for path in files.values() for word in ("--out", path)]
    result = kinship("matrix", *models[1:], "--base", models[0], "--by", by, *outputs)
    assert result.exit_code == 0, result.exception
    told = json.loads(files["json"].read_text())
    assert told == json.loads(kinship("matrix", *models[1:], "--base", models[0], "--by", by, "--json").stdout)
    with np.load(files["npz"], allow_pickle=False) as data:
        assert str(data["by"]) == by
        assert data["labels"].tolist() == list(told["groups"])
        np.testing.assert_array_equal(data["groups"], np.array(list(told["groups"].values())))
    for end in ("json", "npz"):  # whole models are there as ever
        assert KinshipMatrix.load(files[end]).values.tolist() == told["values"]
    page = files["html"].read_text()
    assert len(page.encode()) < 2e6
    assert not page.count('src="http')
    for one, other in combinations(range(1, 5), 2):
        assert f"tune{one} + tune{other}" in page
    assert all(label in page for label in told["groups"])


def test_what_vocabularies_of_other_sizes_cost_is_said(models: list[Path], make_model: MakeModel) -> None:
    longer = make_model("longer", seed=9, shapes=SHAPES | {"model.embed_tokens.weight": (33, 8)})
    result = kinship("matrix", models[1], longer, "--base", models[0])
    assert result.exit_code == 0, result.exception
    said = " ".join(result.stderr.split())
    assert "model.embed_tokens.weight: left out, since the models have different numbers of rows" in said
    assert "--vocab shared" in said
    told = json.loads(kinship("matrix", models[1], longer, "--base", models[0], "--json").stdout)
    assert any("--vocab shared" in note for note in told["notes"])
    assert "--vocab" not in kinship("matrix", *models[1:], "--base", models[0]).stderr


def test_a_dendrogram_is_a_tree_in_the_terminal(models: list[Path]) -> None:
    result = kinship("tree", *models[1:], "--base", models[0])
    assert result.exit_code == 0, result.exception
    heading, root, *lines = result.stdout.splitlines()
    assert "1 - Pearson correlation" in heading
    assert {line.rpartition(" ")[2] for line in lines} > {f"tune{seed}" for seed in (1, 2, 3, 4)}
    assert len(lines) == 4 + 2  # four models and two joins below the last
    told = json.loads(kinship("tree", *models[1:], "--base", models[0], "--json").stdout)
    assert root == f"─ {told['linkage'][-1][2]:.4f}"


def test_lengths_of_task_vectors_are_percent_of_the_base_as_in_trees(models: list[Path]) -> None:
    sign = kinship("matrix", *models[1:], "--base", models[0], "--metric", "sign").stdout
    assert f"Sign agreement of task vectors over {len(SHAPES)} tensors" in " ".join(sign.split())
    result = kinship("matrix", *models[1:], "--base", models[0])
    assert result.exit_code == 0, result.exception
    norms = json.loads(kinship("matrix", *models[1:], "--base", models[0], "--json").stdout)["relative_norms"]
    said = " ".join(result.stdout.split())
    told = ", ".join(f"{Path(name).name} {100 * value:.3g}" for name, value in norms.items())
    assert f"Length of the task vectors, in % of the base's: {told}." in said
