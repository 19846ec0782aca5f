from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.base import Candidate
from evaluators.harness import Harness
from evaluators.live import LiveModel
from evaluators.make import Combined, make_evaluator, require_acknowledged
from evaluators.perplexity import Perplexity
from evaluators.written import WrittenHarness
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed, InvalidConfig, UnsupportedCheckpoint
from tests.evaluators.conftest import Tiny, as_candidate, make_settings
from tests.evaluators.fakes import CountingEvaluator, fake_candidate, fake_task

ROOT = Path(__file__).parents[2]
JUDGE = {"function": "tests.evaluators.judges:Surprise"}


def everything(tiny: Tiny, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    (tmp_path / "story.txt").write_text("\n".join(f"ab{letter} cd" * 3 for letter in "abcdefgh" * 3))
    return {
        "tasks": ["tiny_choice", "tiny_generate"],
        "task_path": str(tiny.tasks),
        "perplexity": [{"file": str(tmp_path / "story.txt"), "documents": "lines"}],
        "functions": [JUDGE],
    } | changes


def test_all_kinds_share_one_model_and_one_load(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, init = list[LiveModel](), LiveModel.__init__
    monkeypatch.setattr(LiveModel, "__init__", lambda self, *a, **k: made.append(self) or init(self, *a, **k))  # type: ignore[func-returns-value]
    checkpoint, loads = open_checkpoint(tiny.model), list[int]()
    combined = make_evaluator(make_settings(**everything(tiny, tmp_path)), checkpoint, ROOT)
    names = ["tiny_choice", "tiny_generate", "story", "Surprise"]
    assert [task.name for task in combined.tasks] == names

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        loads.append(1)
        return iter([(name, checkpoint.tensor(name)) for name in checkpoint.tensors])

    candidate = Candidate("one", "one", tensors)
    whole = combined.run(candidate, {name: [0, 1, 2, 3] for name in names})
    block = combined.run(candidate, {name: [2] for name in names})
    assert (len(made), len(loads)) == (1, 1)
    assert list(whole) == names
    for name in names:
        assert block[name] == pytest.approx({2: whole[name][2]}, rel=1e-5)


def test_each_kind_alone_is_itself(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint, given = open_checkpoint(tiny.model), everything(tiny, tmp_path)
    harness = {key: given[key] for key in ("tasks", "task_path")}
    assert isinstance(make_evaluator(make_settings(**harness), checkpoint), Harness)
    assert isinstance(make_evaluator(make_settings(**harness, written={}), checkpoint), WrittenHarness)
    assert isinstance(make_evaluator(make_settings(perplexity=given["perplexity"]), checkpoint), Perplexity)


def test_results_are_those_of_each_alone(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint, given = open_checkpoint(tiny.model), everything(tiny, tmp_path)
    candidate, documents = as_candidate(checkpoint), {"tiny_choice": [1, 2], "story": [0, 5]}
    combined = make_evaluator(make_settings(**given), checkpoint, ROOT)
    alone = [
        make_evaluator(make_settings(tasks=["tiny_choice"], task_path=given["task_path"]), checkpoint),
        make_evaluator(make_settings(perplexity=given["perplexity"]), checkpoint),
    ]
    expected: dict[str, dict[int, float]] = {}
    for evaluator in alone:
        (task,) = evaluator.tasks
        assert task in combined.tasks
        expected |= evaluator.run(candidate, {task.name: documents[task.name]})
    assert combined.run(candidate, documents) == expected


def test_each_is_asked_for_its_own_alone() -> None:
    parts = [CountingEvaluator([fake_task("a"), fake_task("b")]), CountingEvaluator([fake_task("c")])]
    combined = Combined(parts)
    combined.run(fake_candidate(), {"c": [3], "b": [1, 2]})
    combined.run(fake_candidate(), {"a": [0], "c": []})
    assert parts[0].calls == [("model", {"b": [1, 2]}), ("model", {"a": [0]})]
    assert parts[1].calls == [("model", {"c": [3]})]


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="Two tasks are called 'a'"):
        Combined([CountingEvaluator([fake_task("a")]), CountingEvaluator([fake_task("a")])])


def test_a_device_that_is_not_here_is_refused(tiny: Tiny) -> None:
    settings = make_settings(tasks=["tiny_choice"], task_path=str(tiny.tasks), device="cuda:77")
    with pytest.raises(InvalidConfig, match="no device 'cuda:77' here"):
        make_evaluator(settings, open_checkpoint(tiny.model))


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to evaluate"):
        make_settings(tasks=[])


def test_own_data_need_no_acknowledgement(tiny: Tiny) -> None:
    """A task is public because lm-eval ships it: the evaluator itself says so of what it runs, not its name."""
    settings = make_settings(tasks=["tiny_choice"], task_path=str(tiny.tasks))
    own = make_evaluator(settings, open_checkpoint(tiny.model)).tasks
    assert [task.public for task in own] == [False]
    require_acknowledged(settings, own)
    with pytest.raises(InvalidConfig, match="public benchmarks: arc"):
        require_acknowledged(settings, [*own, replace(own[0], name="arc", public=True)])


def test_the_cause_of_a_failure_is_kept(tiny: Tiny) -> None:
    harness = make_evaluator(
        make_settings(tasks=["tiny_choice"], task_path=str(tiny.tasks)), open_checkpoint(tiny.model)
    )

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        raise OSError("the disk is gone")

    with pytest.raises(
        EvaluationFailed, match=r"bad was not scored: lm-eval raised OSError: the disk is gone"
    ) as raised:
        harness.run(Candidate("bad", "bad", tensors), {"tiny_choice": [0]})
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.__traceback__ is not None


class Panic(BaseException):
    """What a library in Rust raises is no `Exception`."""


@pytest.mark.parametrize("raised", [KeyError("rope"), RuntimeError("one\ntwo"), MemoryError(), Panic("index 5")])
@pytest.mark.parametrize("place", ["evaluators.harness.as_lm_eval", "evaluators.live.Architecture"])
def test_whatever_libraries_raise_names_the_model(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, raised: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(place, fail)
    with open_checkpoint(tiny.model) as checkpoint, pytest.raises(UnsupportedCheckpoint) as caught:
        make_evaluator(make_settings(**everything(tiny, tmp_path)), checkpoint, ROOT)
    assert caught.value.message.startswith(f"{checkpoint.id} cannot be made ready")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.__cause__ is raised
    monkeypatch.setattr(place, interrupted)
    with open_checkpoint(tiny.model) as checkpoint, pytest.raises(KeyboardInterrupt):
        make_evaluator(make_settings(**everything(tiny, tmp_path)), checkpoint, ROOT)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
