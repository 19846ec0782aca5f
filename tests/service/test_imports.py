"""Commands import what they need and no more: most of what a short one takes is imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import MakeModel
from tests.search.runs import put_small_run

PROGRAM = """
import json, sys
from service.cli import main

try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
MODELS = {"torch", "transformers", "lm_eval", "datasets"}
DATABASES = {"sqlalchemy", "alembic"}
PICTURES = {"matplotlib", "plotly", "networkx"}
NAMES = ("one", "two")


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Path:
    base = make_model("base", dtype=torch.float16)
    for seed, name in enumerate(NAMES, 1):
        make_model(name, seed, base, dtype=torch.bfloat16)
    recipe = {"merge_method": "linear", "models": [{"model": name, "parameters": {"weight": 0.5}} for name in NAMES]}
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "run").mkdir()  # of a method whose kernels need torch
    put_small_run(tmp_path / "run")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        ("matrix one two --base base", MODELS | DATABASES | PICTURES),
        ("tree one two --base base", MODELS | DATABASES | PICTURES),
        ("merge recipe.yml out", MODELS | DATABASES | PICTURES),
        ("methods", MODELS - {"torch"} | DATABASES | PICTURES),
        ("runs show run", MODELS | PICTURES | {"numba"}),
    ],
)
def test_a_command_imports_nothing_beside(folder: Path, words: str, unwanted: set[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, *words.split()]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not unwanted & set(json.loads(ended.stderr.splitlines()[-1]))
