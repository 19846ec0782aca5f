import os

import pytest
import typer
from typer.main import get_command

from kinship import file_state
from kinship.file_state import VERIFY
from service.cli import app
from tests.conftest import MakeModel
from tests.service.conftest import Kinship

READERS = ["matrix", "advise", "tree", "merge", "verify", "score", "evolve", "index add", "index query"]


@pytest.mark.parametrize("command", READERS)
def test_every_command_that_reads_models_can_be_told_to_hash_them(command: str) -> None:
    found = get_command(app)
    for name in command.split():
        found = found.get_command(typer.Context(found), name)  # type: ignore[attr-defined, assignment]
    assert "--verify-inputs" in [option for parameter in found.params for option in parameter.opts]


def test_inputs_are_hashed_for_one_command(
    kinship: Kinship, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_model("base")
    command = ["matrix", make_model("a", 1, base), make_model("b", 2, base), "--base", base]
    sampled: list[str] = []
    sample = file_state._sample
    monkeypatch.setattr(file_state, "_sample", lambda file, size: sampled.append("") or sample(file, size))
    plain = kinship(*command)
    assert sampled
    sampled.clear()
    assert kinship(*command, "--verify-inputs").out == plain.out
    assert not sampled
    assert VERIFY not in os.environ


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["matrix", "a", "--base", "b", "--metric", "cosin"],
            "'--metric': 'cosin' is not one of 'pcc'",
        ),
        (
            ["score", "a", "--tasks", "t", "--limit", "-3"],
            "'--limit': expected greater than or equal",
        ),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_value_is_told_in_our_words(kinship: Kinship, words: list[str], said: str, as_json: bool) -> None:
    told = kinship(*words, *(["--json"] if as_json else []))
    assert told.code == 2
    assert said in (told.out if as_json else told.err)
