"""Scores that somebody has already, in whatever form."""

import json
from pathlib import Path

import pytest

from kinship.errors import InvalidConfig, ReferenceNotFound
from service.answers.given_scores import read_scores
from service.answers.score import Scores


def given(folder: Path, text: str) -> dict[str, float]:
    file = folder / "scores"
    file.write_bytes(text.encode("utf-8"))
    return read_scores(str(file)).scores


@pytest.mark.parametrize(
    "text",
    [
        "model,score\na,0.5\nb,0.25\n",
        "\ufeffmodel;score;note\r\na;0.5;x\r\nb;.25;\r\n",
        "Score\tName\n0.5\ta\n2.5e-1\tb\n",
        "model,split,task,value\na,search,t,9\na,search,mean of tasks,0.5\na,held_out,mean of tasks,7\n"
        "b,search,mean of tasks,0.25\n",
    ],
)
def test_tables(tmp_path: Path, text: str) -> None:
    assert given(tmp_path, text) == {"a": 0.5, "b": 0.25}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no scores"),
        ("model,score\n", "has no scores"),
        ("a,0.5\nb,0.25\n", "columns model and score, and has: a, 0.5"),
        ("model,score\na,high\n", "line 2: expected a model and a number, found 'a' and 'high'"),
        ("model,score\na,nan\n", "line 2"),
        ("model,score\na\n", "line 2"),
        ("model,score\na,1\na,2\n", "line 3: a is there twice"),
        ("model,score\na,0,5\n", "line 2: expected 2 cells, found 3"),  # half a point by a comma, not nothing
        ("[1, 2]", "no output of `kinship score --json`"),
        ('{"schema": "kinship.matrix/1"}', "but kinship.matrix/1"),
        ("{", "no output"),
    ],
)
def test_what_has_no_scores(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        given(tmp_path, text)
    assert reason in raised.value.message


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound, match="There is no"):
        read_scores(str(tmp_path / "missing"))
    (tmp_path / "weights").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read_scores(str(tmp_path / "weights"))


def scored(value: float | None) -> str:
    split = {"value": value, "stderr": 0.1, "complete": True, "documents": 4, "tasks": {}}
    model = {
        "model": "a", "error": None, "conditions": {}, "splits": {"search": split}, "versus_first": {},
        "versus_first_by_task": {},
    }  # fmt: skip
    content = json.dumps({"schema": "kinship.score/3", "settings": {}, "models": [model]})
    Scores.model_validate_json(content)
    return content


def test_what_kinship_score_prints(tmp_path: Path) -> None:
    assert given(tmp_path, scored(0.5)) == {"a": 0.5}
    with pytest.raises(InvalidConfig, match="unlike metrics"):
        given(tmp_path, scored(None))


def test_models_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("model,score\nhub/math,1\nx/code,2\ny/code,3\n")
    scores = read_scores(str(tmp_path / "scores.csv"))
    assert scores.of(["/home/ann/math", "x/code"]) == {"/home/ann/math": 1, "x/code": 2}
    for models, reason in (
        (["/home/ann/code"], "has scores of x/code, y/code"),
        (["one/math", "two/math"], "is one/math one of them"),
        (["law"], "no score of law; it has: hub/math"),
    ):
        with pytest.raises(InvalidConfig) as raised:
            scores.of(models)
        assert reason in raised.value.message
