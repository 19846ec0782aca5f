"""Few-shot examples never show what the search must not see."""

from pathlib import Path
from typing import Any

import pytest

from evaluators.harness import Harness
from kinship.errors import InvalidConfig
from tests.evaluators.conftest import DOCUMENTS, Tiny, make_harness, select, write_tasks

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
