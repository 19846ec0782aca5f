"""`kinship index`, as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kinship.errors import InvalidConfig, ReferenceNotFound
from service.cli import app

MakeModel = Callable[..., Path]


def kinship(*words: object) -> Result:
    return CliRunner().invoke(app, ["index", *map(str, words)], catch_exceptions=True)


def told(*words: object) -> dict[str, object]:
    result = kinship(*words, "--json")
    assert result.exit_code == 0, result.exception
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.fixture
def models(make_model: MakeModel) -> list[Path]:
    """A base, its fine-tune, and a stranger."""
    base = make_model("base")
    return [base, make_model("child", seed=1, base=base), make_model("stranger", seed=2)]


def test_relatives_are_found(models: list[Path], tmp_path: Path) -> None:
    index = tmp_path / "index.sqlite"
    base, child, stranger = map(str, models)
    assert told("add", index, base, stranger) == {
        "schema": "kinship.index/1",
        "index": str(index),
        "models": [base, stranger],
    }
    found = told("query", index, child)
    assert found["compared"] == 2
    assert [relative["id"] for relative in found["relatives"]] == [base]  # type: ignore[attr-defined]
    shown = kinship("query", index, child)
    assert "1 of 2 models" in " ".join(shown.stderr.split())
    assert told("remove", index, base)["models"] == [stranger]
    assert "related to none of the 1 models" in kinship("query", index, child).stdout.replace("\n", " ")


def test_what_cannot_be_done(models: list[Path], tmp_path: Path) -> None:
    index = tmp_path / "index.sqlite"
    assert isinstance(kinship("query", index, models[0]).exception, ReferenceNotFound)
    assert isinstance(kinship("add", index, models[0], models[0]).exception, InvalidConfig)
    assert not index.exists()
    assert isinstance(kinship("add", index, models[0], tmp_path / "gone").exception, ReferenceNotFound)
    assert told("list", index)["models"] == [str(models[0])]  # what was added before stays
    (models[0] / "model.safetensors").write_bytes((models[2] / "model.safetensors").read_bytes())
    assert isinstance(kinship("add", index, models[0]).exception, InvalidConfig)
    assert kinship("add", index, models[0], "--force").exit_code == 0
