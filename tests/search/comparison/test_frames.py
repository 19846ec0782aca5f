"""Scores that are compared are made in one frame."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kinship.errors import InvalidConfig
from tests.search.comparison.plans import content_of
from tests.search.comparison.test_running import compared

if TYPE_CHECKING:
    from service.demo.family import Family


def templated(model: str, folder: Path, template: str) -> str:
    """A copy of a model with a chat template of its own."""
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def few(family: "Family", tmp_path: Path) -> dict[str, object]:
    """A plan in which one specialist has another template."""
    content = content_of(family, seeds=[0], number={}, methods={"linear": {}, "task_arithmetic": {}}, controls=[])
    cells = content["cells"]
    own = templated(cells["max"]["model"], tmp_path / "own", "{{ messages }}!")
    return content | {"cells": cells | {"max": cells["max"] | {"model": own}}}


def test_different_templates_are_refused_by_name_before_any_work_and_settled_by_frame(
    family: "Family", tmp_path: Path
) -> None:
    content = few(family, tmp_path)
    with pytest.raises(InvalidConfig, match=r"compared in one: chat template: .*own") as raised:
        compared(content, tmp_path / "out")
    assert f"frame: {family.base}" in str(raised.value.hint)
    assert not (tmp_path / "out" / "comparison.sqlite").exists()
    answer = compared(content | {"frame": str(family.base)}, tmp_path / "out")
    assert [row.error for row in answer.rows] == [None] * len(answer.rows)
    plain = compared(content_of(family, seeds=[0], number={}, methods=content["methods"], controls=[]), tmp_path / "b")
    assert [row.scores for row in answer.rows] == [row.scores for row in plain.rows]


def test_other_numbers_for_the_same_tokens_are_refused_whatever_the_frame(family: "Family", tmp_path: Path) -> None:
    content = few(family, tmp_path)
    file = tmp_path / "own" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(InvalidConfig, match="number their tokens differently: vocabulary"):
        compared(content | {"frame": str(family.base)}, tmp_path / "out")
