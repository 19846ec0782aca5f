"""What lm-eval is asked once is what it would say every time."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from lm_eval.utils import apply_template

from evaluators.lm_eval.metrics import measure_of
from evaluators.lm_eval.reading import Reading
from evaluators.lm_eval.tasks import load_tasks
from kinship.checkpoints.opening import open_checkpoint
from tests.evaluators.conftest import DOCUMENTS, Tiny, as_candidate, make_harness, make_settings, select, write_tasks

ALL = list(range(DOCUMENTS))
CHOICES = ["a", "bcd", "ef", "déf"]


def task_of(folder: Path, metric: str, **changes: Any) -> tuple[Any, list[Any], Reading]:
    """The task as lm-eval has it, its documents, and a reading of another such task."""
    rows = [{"prompt": f"{i}=", "choices": CHOICES, "label": i % 4, "answer": CHOICES[i % 4]} for i in range(8)]
    metrics = [{"metric": name, "aggregation": "mean"} for name in ("acc", "acc_norm", "acc_bytes", "exact_match")]
    write_tasks(folder, {"tiny_choice": rows}, tiny_choice={"metric_list": metrics, "target_delimiter": " "} | changes)
    settings = make_settings(tasks=[{"task": "tiny_choice", "metric": metric}], task_path=str(folder))
    plain, read = (load_tasks(settings, Path())["tiny_choice"] for _ in range(2))
    documents = list(read.task.eval_docs)
    return plain.task, documents, Reading("tiny_choice", read.task, documents, measure_of(read), "none")


def answered(rng: random.Random, count: int) -> list[tuple[float, bool]]:
    """Likelihoods with ties."""
    return [(-float(rng.randint(1, 6)), rng.random() < 0.5) for _ in range(count)]


def as_requests(answers: dict[int, list[tuple[float, bool]]], documents: list[Any]) -> list[Any]:
    return [
        SimpleNamespace(doc_id=index, idx=place, doc=documents[index], resps=[answer], filtered_resps={})
        for index, group in answers.items()
        for place, answer in enumerate(group)
    ]


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "exact_match"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="number"),
        pytest.param({"doc_to_target": "{{answer}}"}, id="text"),
        pytest.param({"doc_to_target": "{{[label, 0]}}"}, id="several"),
        pytest.param({"doc_to_target": "{{[1, 7, 2, 3][label]}}"}, id="out of range"),
        pytest.param({"doc_to_text": "{{label}}", "doc_to_target": "{{answer}}"}, id="several contexts"),
    ],
)
def test_values_are_lm_evals(tmp_path: Path, metric: str, changes: dict[str, Any]) -> None:
    plain, documents, reading = task_of(tmp_path / "t", metric, **changes)
    rng = random.Random(0)
    for _ in range(40):  # candidates
        answers = {index: answered(rng, 4) for index in range(8)}
        expected = {index: plain.process_results(documents[index], group)[metric] for index, group in answers.items()}
        assert reading.values("one", as_requests(answers, documents)) == expected


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_empty_choices_are_lm_evals_affair(tmp_path: Path) -> None:
    changes = {"doc_to_choice": "{{['x', 'y'] if label == 0 else ['', 'a']}}", "doc_to_target": 1}
    plain, documents, reading = task_of(tmp_path / "t", "acc_norm", **changes)
    for likelihoods in ([-1.0, -2.0], [-2.0, -1.0], [-1.0, -1.0]):
        answers = [(likelihood, False) for likelihood in likelihoods]
        expected = plain.process_results(documents[1], answers)["acc_norm"]
        assert reading.values("one", as_requests({1: answers}, documents)) == {1: expected}


def test_lm_eval_is_asked_once_for_each_winner(tmp_path: Path) -> None:
    _, documents, reading = task_of(tmp_path / "t", "acc")
    with patch.object(reading._task, "process_results", wraps=reading._task.process_results) as asked:
        for winner in (0, 1, 1, 0, 2, 0):
            answers = [(-float(place != winner), False) for place in range(4)]
            assert reading.values("one", as_requests({2: answers}, documents)) == {2: float(winner == 2)}
    assert asked.call_count == 3


@pytest.mark.parametrize("task", ["tiny_choice", "tiny_generate", "tiny_likelihood"])
def test_templates_are_rendered_once(tiny: Tiny, task: str) -> None:
    harness = make_harness(tiny, tasks=[task])
    one, other = (as_candidate(open_checkpoint(tiny.model), factor) for factor in (1.0, -0.7))
    with patch("lm_eval.utils.apply_template", wraps=apply_template) as rendered:
        harness.run(one, {task: ALL})
        before = rendered.call_count
        harness.run(other, {task: ALL})
    assert before > 0
    assert rendered.call_count == before


def test_a_task_that_counts_by_itself_is_asked_every_time(tiny: Tiny, tmp_path: Path) -> None:
    changes = {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_choice"), tiny_choice=changes)
    (folder / "utils.py").write_text("def sure(document, results):\n    return {'acc': results[0][0]}\n")
    with (folder / "tiny_choice.yaml").open("a") as file:
        file.write("process_results: !function utils.sure\n")
    harness = make_harness(tiny, folder=folder, tasks=["tiny_choice"], allow_task_code=True)
    one, other = (as_candidate(open_checkpoint(tiny.model), factor) for factor in (1.0, 0.999))
    values = [harness.run(candidate, {"tiny_choice": ALL})["tiny_choice"] for candidate in (one, other)]
    assert all(values[0][index] != values[1][index] for index in ALL)
