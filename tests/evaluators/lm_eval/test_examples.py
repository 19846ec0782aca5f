"""Few-shot examples never show what the search must not see."""

from pathlib import Path
from typing import Any

import pytest

from evaluators.harness import Harness
from kinship.errors import InvalidConfig
from tests.evaluators.conftest import (
    DOCUMENTS,
    Tiny,
    asked_of_lm_eval,
    make_harness,
    select,
    write_documents,
    write_tasks,
)

ALL = list(range(DOCUMENTS))


def shots_of(harness: Harness, documents: list[int]) -> dict[int, list[int]]:
    """Which documents are the examples of each, by their index."""
    prepared = harness._suite._tasks["tiny_choice"]
    every = [dict(document) for document in prepared._documents]
    return {i: [every.index(dict(example)) for example in prepared._examples._draws[i]] for i in documents}


def own_pool(tiny: Tiny, folder: Path, **changes: Any) -> Path:
    """A task without examples of its own: lm-eval would take them from what it evaluates."""
    return write_tasks(folder, select(tiny, "tiny_choice"), tiny_choice={"num_fewshot": 3} | changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"fewshot_split": "test"}, {"test_split": None, "validation_split": "test"},
     {"test_split": None, "validation_split": "test", "fewshot_split": "test"},
     {"fewshot_config": {"sampler": "first_n"}}],
    ids=["test", "said so", "validation", "validation, said so", "first n"],
)  # fmt: skip
def test_neither_held_out_documents_nor_the_question_are_examples(
    tiny: Tiny, tmp_path: Path, changes: dict[str, Any]
) -> None:
    harness = make_harness(tiny, folder=own_pool(tiny, tmp_path / "t", **changes), tasks=["tiny_choice"], limit=3)
    everything = make_harness(tiny, folder=tmp_path / "t", tasks=["tiny_choice"])
    search = set(everything.tasks[0].documents["search"])
    drawn = shots_of(harness, ALL)
    for index, examples in drawn.items():
        assert len(set(examples)) == 3
        assert set(examples) <= search - {index}
    assert shots_of(everything, ALL) == drawn  # a limit changes no prompt
    if "fewshot_config" not in changes:
        assert len({tuple(examples) for examples in drawn.values()}) > DOCUMENTS // 2
        assert shots_of(make_harness(tiny, folder=tmp_path / "t", tasks=["tiny_choice"], seed=5), ALL) != drawn


def test_too_few_examples_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = own_pool(tiny, tmp_path / "t", num_fewshot=20)
    with pytest.raises(InvalidConfig, match="too few examples for num_fewshot 20"):
        make_harness(tiny, folder=folder, tasks=["tiny_choice"])


def test_prompts_are_built_for_what_is_asked_alone(tiny: Tiny, tmp_path: Path) -> None:
    harness = make_harness(tiny, folder=own_pool(tiny, tmp_path / "t"), tasks=["tiny_choice"], limit=3)
    prepared = harness._suite._tasks["tiny_choice"]
    built = []
    construct = prepared._task.construct_requests
    prepared._task.construct_requests = lambda **given: built.append(given["metadata"][1]) or construct(**given)  # type: ignore[func-returns-value]
    prepared.requests(harness._lm, [5, 2])
    prepared.requests(harness._lm, [2, 9])
    assert built == [5, 2, 9]


SHOTS = [{"prompt": f"{letter}b=", "choices": ["a", "b"], "label": place % 2} for place, letter in enumerate("cdefg")]


def prompts_of(harness: Harness) -> dict[int, Any]:
    requests = harness._suite._tasks["tiny_choice"].requests(harness._lm, ALL)
    return {request.doc_id: request.args for request in requests}


def lm_evals(tiny: Tiny, folder: Path) -> dict[int, Any]:
    asked = asked_of_lm_eval(tiny.model, ["tiny_choice"], folder)["samples"]["tiny_choice"]
    return {sample["doc_id"]: sample["arguments"][-1] for sample in asked}


@pytest.mark.parametrize("sampler", ["first_n", "default"])
@pytest.mark.parametrize("place", ["split", "samples"])
@pytest.mark.parametrize("shots", [4, 5])
def test_as_many_shots_as_there_are_examples(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, place: str, shots: int
) -> None:
    """MMLU is asked 5 of 5, GSM8K-CoT 8 of 8."""
    changes: dict[str, Any] = {"num_fewshot": shots, "fewshot_config": {"sampler": sampler}}
    if place == "split":
        changes |= {"fewshot_split": "dev"}
        changes |= {"dataset_kwargs": {"data_files": {"test": "tiny_choice.jsonl", "dev": "dev.jsonl"}}}
    else:
        changes["fewshot_config"] |= {"samples": SHOTS}
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_choice"), tiny_choice=changes)
    write_documents(folder / "dev.jsonl", SHOTS)
    monkeypatch.chdir(folder)
    assert prompts_of(make_harness(tiny, folder=folder, tasks=["tiny_choice"])) == lm_evals(tiny, folder)


def test_an_example_that_is_also_asked_costs_no_shot(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"test": "tiny_choice.jsonl", "dev": "dev.jsonl"}
    changes = {"num_fewshot": 5, "fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}}
    rows = select(tiny, "tiny_choice")
    folder = write_tasks(tmp_path / "t", rows, tiny_choice=changes | {"dataset_kwargs": {"data_files": data}})
    write_documents(folder / "dev.jsonl", [*SHOTS[:4], rows["tiny_choice"][7]])
    monkeypatch.chdir(folder)
    assert prompts_of(make_harness(tiny, folder=folder, tasks=["tiny_choice"])) == lm_evals(tiny, folder)


@pytest.mark.parametrize("shots", [3, DOCUMENTS])
def test_one_more_example_is_needed_where_the_question_is_among_them(tiny: Tiny, tmp_path: Path, shots: int) -> None:
    folder = own_pool(tiny, tmp_path / "t", num_fewshot=shots, fewshot_split="test")
    if shots == DOCUMENTS:
        with pytest.raises(InvalidConfig, match=r"too few examples.*question's own") as raised:
            make_harness(tiny, folder=folder, tasks=["tiny_choice"])
        assert "or less" in (raised.value.hint or "")
    else:
        make_harness(tiny, folder=folder, tasks=["tiny_choice"])
