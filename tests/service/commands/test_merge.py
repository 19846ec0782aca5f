"""`kinship merge` and `kinship matrix` on recipes."""

import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import MakeModel
from tests.service.conftest import Kinship


def recipe(folder: Path, make_model: MakeModel) -> Path:
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate(("one", "two"), 1)]
    entries = [{"model": str(model), "parameters": {"weight": 0.5}} for model in (*models, base)]
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump({"merge_method": "task_arithmetic", "base_model": str(base), "models": entries}))
    return path


def test_shards_and_dtype_are_those_asked_for(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    path = recipe(tmp_path, make_model)
    options = ("--shard-size", "12KB", "--dtype", "bfloat16", "--json")
    plan = json.loads(kinship("merge", path, tmp_path / "out", *options, "--dry-run").out)
    assert kinship("merge", path, tmp_path / "out", *options).code == 0
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    index = (tmp_path / "out" / "model.safetensors.index.json").stat().st_size
    assert plan["bytes_out"] == sum(file.stat().st_size for file in files) + index
    assert plan["dtypes"] == ["bfloat16"]


def test_a_size_that_is_none_is_refused(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    path = recipe(tmp_path, make_model)
    for size in ("0", "many", "5XB", "-1GB", "9" * 30):
        outcome = kinship("merge", path, tmp_path / "out", "--shard-size", size)
        assert outcome.code == 1
        assert "is no size of a file" in outcome.err


def test_a_matrix_of_a_recipe_is_that_of_its_models(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    path = recipe(tmp_path, make_model)
    found = json.loads(kinship("matrix", path, "--json").out)
    models = [str(tmp_path / name) for name in ("one", "two")]
    assert found == json.loads(kinship("matrix", *models, "--base", tmp_path / "base", "--json").out)
    assert found["ids"] == models
    refused = kinship("matrix", *models)
    assert refused.code == 1
    assert "Add --base" in refused.err
