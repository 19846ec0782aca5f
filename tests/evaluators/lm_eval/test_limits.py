"""What does not fit the context is told with task and document, before a search where that can be."""

from pathlib import Path
from typing import Any

import pytest

from evaluators.lm_eval import suite
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed, InvalidConfig
from tests.evaluators.conftest import Tiny, as_candidate, make_harness, select, write_tasks

LONG = "ab" * 40  # of a context of 64


def with_long_answer(tiny: Tiny, folder: Path, task: str, place: int = 7) -> Path:
    rows = select(tiny, task)
    answer = {"choices": ["a", LONG, "b"]} if task == "tiny_choice" else {"answer": LONG}
    rows[task][place] = rows[task][place] | answer
    return write_tasks(folder, rows)


@pytest.mark.parametrize("task", ["tiny_choice", "tiny_likelihood"])
def test_an_answer_longer_than_the_context_is_found_beforehand(tiny: Tiny, tmp_path: Path, task: str) -> None:
    folder = with_long_answer(tiny, tmp_path / "t", task)
    with pytest.raises(InvalidConfig, match=rf"document 7 of task {task} .*80 tokens.* has 64") as raised:
        make_harness(tiny, folder=folder, tasks=[task])
    assert "process_docs" in (raised.value.hint or "")


def test_documents_that_a_limit_leaves_out_do_not_count(tiny: Tiny, tmp_path: Path) -> None:
    def fits(place: int) -> bool:
        try:
            folder = with_long_answer(tiny, tmp_path / str(place), "tiny_choice", place)
            make_harness(tiny, folder=folder, tasks=["tiny_choice"], limit=2)
        except InvalidConfig:
            return False
        return True

    assert any(map(fits, range(6)))  # of 24, of which 4 are asked


def test_what_is_found_late_names_task_and_document_too(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite.Suite, "require_fitting", lambda *_: None)
    harness = make_harness(tiny, folder=with_long_answer(tiny, tmp_path / "t", "tiny_choice"), tasks=["tiny_choice"])
    candidate = as_candidate(open_checkpoint(tiny.model))
    with pytest.raises(EvaluationFailed, match=r"An answer of document 7 of task tiny_choice .*80 tokens"):
        harness.run(candidate, {"tiny_choice": [3, 7, 9]})
    assert harness.run(candidate, {"tiny_choice": [3, 9]})["tiny_choice"].keys() == {3, 9}


def test_an_answer_of_no_tokens_is_told(tiny: Tiny, tmp_path: Path) -> None:
    rows = select(tiny, "tiny_likelihood")
    rows["tiny_likelihood"][5] = rows["tiny_likelihood"][5] | {"answer": ""}
    harness = make_harness(tiny, folder=write_tasks(tmp_path / "t", rows), tasks=["tiny_likelihood"])
    with pytest.raises(EvaluationFailed, match="answer of document 5 of task tiny_likelihood has no tokens"):
        harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_likelihood": [4, 5]})


@pytest.mark.parametrize("settings", [{}, {"gen_kwargs": {"max_gen_toks": 64}}])
def test_answers_need_room_in_the_context(tiny: Tiny, tmp_path: Path, settings: dict[str, Any]) -> None:
    changes = {"tiny_generate": {"generation_kwargs": {"until": [" "], "do_sample": False}}}
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_generate"), **changes)
    with pytest.raises(InvalidConfig, match=r"tiny_generate lets answers have .*64") as raised:
        make_harness(tiny, folder=folder, tasks=["tiny_generate"], **settings)
    assert "max_gen_toks" in (raised.value.hint or "")
    make_harness(tiny, folder=folder, tasks=["tiny_generate"], gen_kwargs={"max_gen_toks": 8})
