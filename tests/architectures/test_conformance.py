"""Every architecture goes through every stage, and the table of the docs says what came of it."""

import json
from pathlib import Path

import pytest
import yaml

from tests.architectures.family import Family
from tests.architectures.rows import ROWS
from tests.architectures.stages import EVALUATE, TEXTS, WEIGHTS, YES, Stage, merge, outcome
from tests.architectures.table import DOCUMENT, parse
from tests.service.conftest import Kinship
from tests.service.conftest import kinship as kinship  # a fixture

TABLE = parse(DOCUMENT.read_text(encoding="utf-8"))
NAMED = {row.name: row for row in ROWS}

# Those whose texts are asked for in every run of the tests: one of each way to lie on disk and to be asked.
ASKED = ("GPT-2", "Mixtral", "RWKV", "T5", "Llama 3.2 Vision", "BERT")


def require(family: Family, stages: dict[str, Stage]) -> None:
    """That the table says what comes of ``stages``."""
    assert {name: outcome(stage, family) for name, stage in stages.items()} == {
        name: TABLE[family.row.name][name] for name in stages
    }


@pytest.mark.parametrize("name", NAMED)
def test_weights(name: str, tmp_path: Path) -> None:
    require(Family(NAMED[name], tmp_path), WEIGHTS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ASKED else pytest.mark.soak) for name in NAMED]
)
def test_texts(name: str, tmp_path: Path) -> None:
    family = Family(NAMED[name], tmp_path)
    merge(family)  # which reads weights: a refusal must not
    require(family, TEXTS)


def test_the_table_keeps_its_promise() -> None:
    assert TABLE.keys() == NAMED.keys()
    assert len({row.kind for row in ROWS}) >= 12
    assert len({row.classname for row in ROWS}) >= 30
    for stage in WEIGHTS:
        assert [name for name in TABLE if TABLE[name][stage] != YES] == []
    for stage in TEXTS:
        asked = {name for name in TABLE if TABLE[name][stage] == YES}
        assert asked == {row.name for row in ROWS if row.text}
        assert len(asked) >= 26
    for name, cells in TABLE.items():
        refused = [cell for cell in cells.values() if cell != YES]
        assert all(NAMED[name].classname in sentence for sentence in refused)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["GPT-2", "Mixtral", "BART", "Qwen2-VL"])
def test_by_the_command_line(name: str, tmp_path: Path, kinship: Kinship, monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family(NAMED[name], tmp_path)
    monkeypatch.chdir(tmp_path)
    weights = [{"model": name, "parameters": {"weight": 0.5}} for name in "ab"]
    recipe = {"merge_method": "task_arithmetic", "base_model": "base", "models": weights}
    run = {"base": "base", "founders": ["a", "b"], "evaluate": EVALUATE, "stop": {"generations": 1}}
    for file, content in (("merge.yml", recipe), ("eval.yml", EVALUATE), ("run.yml", run)):
        Path(file).write_text(yaml.safe_dump(content))
    commands = {
        "matrix": ["matrix", "a", "b", "--base", "base", "--json"],
        "merge": ["merge", "merge.yml", "merged"],
        "verify": ["verify", "merged"],
        "score": ["score", "merged", "--config", "eval.yml", "--json"],
        "dry": ["evolve", "run.yml", "--out", "run", "--dry-run"],
        "evolve": ["evolve", "run.yml", "--out", "run"],
        "runs": ["runs", "verify", "run"],
        "tree": ["tree", "a", "base", "b", "--recover", "--json"],
    }
    said = {name: kinship(*arguments) for name, arguments in commands.items()}
    assert {name: one.err for name, one in said.items() if one.code} == {}
    edges = {(edge["parent"], edge["child"]) for edge in json.loads(said["tree"].out)["edges"]}
    assert edges == {("base", "a"), ("base", "b")}
    family.require_mean(tmp_path / "merged")
