import json
from pathlib import Path
from typing import Any

import pytest

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.frame import TEMPLATE_NAME, chat_template_of, choose_frame, differences, frame_of
from kinship.errors import InvalidConfig, MalformedCheckpoint


def model(folder: Path, id: str, *, end: Any = 2, template: str | None = None, extra: int = 0) -> Checkpoint:
    path = folder / id
    path.mkdir()
    vocabulary = {"<eos>": 2, "a": 3} | {f"<extra{number}>": 4 + number for number in range(extra)}
    tokenizer = {"model": {"type": "WordLevel", "vocab": vocabulary}, "added_tokens": [], "padding": None}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"eos_token": "<eos>", "name_or_path": id} | ({"chat_template": template} if template else {})
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": end, "transformers_version": id}))
    return Checkpoint(id, path, {}, {"model_type": "llama", "eos_token_id": 2})


def test_one_frame_whatever_the_files_say_of_their_past(tmp_path: Path) -> None:
    frames = [frame_of(model(tmp_path, id, template="{{ x }}")) for id in ("a", "b")]
    assert differences(frames) == []
    assert frames[0].end_tokens == [2]


def test_a_template_in_a_file_of_its_own_is_the_same_template(tmp_path: Path) -> None:
    one, other = model(tmp_path, "a", template="{{ x }}"), model(tmp_path, "b")
    (other.path / "chat_template.jinja").write_text("{{ x }}")
    assert differences([frame_of(one), frame_of(other)]) == []


def test_the_founders_frame_is_taken_where_they_agree(tmp_path: Path) -> None:
    base = model(tmp_path, "base")
    founders = [model(tmp_path, id, end=[2, 3], template="{{ x }}") for id in ("a", "b")]
    assert choose_frame(None, base, founders) is founders[0]
    assert choose_frame("base", base, founders) is base
    assert choose_frame(None, base, [model(tmp_path, "c")]) is base


def test_founders_that_differ_are_refused_with_each_difference_and_what_to_write(tmp_path: Path) -> None:
    base = model(tmp_path, "base")
    founders = [model(tmp_path, "a", end=[2, 3]), model(tmp_path, "b", template="{{ x }}", extra=1)]
    with pytest.raises(InvalidConfig) as error:
        choose_frame(None, base, founders)
    for said in ("eos_token_id: [2, 3] in a, 2 in b", "chat template: none in a", "vocabulary"):
        assert said in error.value.message
    assert "`frame: base` or `frame: a` or `frame: b`" in error.value.hint
    with pytest.raises(InvalidConfig, match="none of the models"):
        choose_frame("c", base, founders)


def test_a_template_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / TEMPLATE_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MalformedCheckpoint, match="no text in UTF-8"):
        chat_template_of(Checkpoint("model", tmp_path, {}, {}))


def test_letters_in_two_escapes_are_letters(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "\N{DNA DOUBLE HELIX}"}))
    assert chat_template_of(Checkpoint("model", tmp_path, {}, {})) == "\N{DNA DOUBLE HELIX}"
