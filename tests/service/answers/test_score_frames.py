from pathlib import Path

import pytest

from kinship.checkpoints.checkpoint import Checkpoint
from service.answers.score import frame


@pytest.mark.parametrize("name", ["chat_template.json", "mine.tiktoken", "other.jinja", "vocab.txt", "config.json"])
def test_models_that_differ_in_a_file_of_the_frame_share_no_evaluator(tmp_path: Path, name: str) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    one, other = (Checkpoint(folder.name, folder, {}, {}) for folder in folders)
    assert frame(one) == frame(other)
    (folders[1] / name).write_text("{}")
    assert frame(one) != frame(other)
