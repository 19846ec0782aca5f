import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import evaluators.function
from evaluators.function import FunctionEvaluator
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed, InvalidConfig
from tests.evaluators.conftest import Tiny, as_candidate, make_settings
from tests.evaluators.judges import PROMPTS

JUDGES = "tests.evaluators.judges"
ALL = range(len(PROMPTS))
ROOT = Path(__file__).parents[2]


def evaluator(tiny: Tiny, function: str = "Surprise", root: Path = ROOT, **settings: Any) -> FunctionEvaluator:
    wanted = {"function": function if ":" in function else f"{JUDGES}:{function}"} | settings
    return FunctionEvaluator(make_settings(functions=[wanted]), open_checkpoint(tiny.model), root)


def test_a_function_scores_the_candidate(tiny: Tiny) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny.model), AutoTokenizer.from_pretrained(tiny.model)
    judged = evaluator(tiny, options={"letter": "c"})
    found = judged.run(as_candidate(open_checkpoint(tiny.model)), {"Surprise": ALL})["Surprise"]
    (token,) = tokenizer.encode("c")
    for index, prompt in enumerate(PROMPTS):
        expected = model(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1].log_softmax(-1)[token]
        assert found[index] == pytest.approx(expected.item(), rel=1e-5)
    (task,) = judged.tasks
    assert (task.name, task.metric, task.version) == ("Surprise", "score", "1")
    assert sorted([*task.documents["search"], *task.documents["held_out"]]) == list(ALL)


def test_a_function_may_make_it(tiny: Tiny) -> None:
    candidate = as_candidate(open_checkpoint(tiny.model))
    made = evaluator(tiny, "made", options={"letter": "b"}, name="mine")
    expected = evaluator(tiny, options={"letter": "b"}).run(candidate, {"Surprise": ALL})["Surprise"]
    assert made.run(candidate, {"mine": ALL}) == {"mine": expected}


def test_an_entry_point_may_name_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("surprise", f"{JUDGES}:Surprise", evaluators.function.GROUP)
    monkeypatch.setattr(evaluators.function, "entry_points", lambda group: [point] * (group == point.group))
    settings = make_settings(functions=[{"function": "surprise"}])
    assert FunctionEvaluator(settings, open_checkpoint(tiny.model)).tasks[0].name == "surprise"
    with pytest.raises(InvalidConfig, match="no evaluator 'suprise'") as raised:
        FunctionEvaluator(make_settings(functions=[{"function": "suprise"}]), open_checkpoint(tiny.model))
    assert raised.value.hint == "Did you mean 'surprise'?"


def test_a_module_may_lie_beside_the_run_file(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "my_own_judge.py").write_text(f"from {JUDGES} import Surprise as Mine\n")
    before = list(sys.path)
    try:
        assert evaluator(tiny, "my_own_judge:Mine", tmp_path).tasks[0].name == "Mine"
        assert sys.path == before
    finally:
        sys.modules.pop("my_own_judge", None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no_such_module:Judge", {}, "cannot be imported: ModuleNotFoundError"),
        ("Nobody", {}, "cannot be imported: AttributeError"),
        ("no_judge", {}, "makes dict, which lacks"),
        ("made", {}, "could not be made with the options"),
        ("Surprise", {"letters": "a"}, "could not be made with the options"),
    ],
)
def test_what_is_no_judge_is_refused(tiny: Tiny, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        evaluator(tiny, name, options=options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Short", "gave 15 numbers for 16 documents"),
        ("Nan", "gave nan for .* on document 0"),
        ("Enormous", r"gave 1e\+308 for .* on document 0"),
        ("Buggy", r"the function Buggy raised ZeroDivisionError: .*judges\.py, line \d+"),
    ],
)
def test_a_bad_answer_fails_the_candidate(tiny: Tiny, name: str, message: str) -> None:
    with pytest.raises(EvaluationFailed, match=message):
        evaluator(tiny, name).run(as_candidate(open_checkpoint(tiny.model)), {name: ALL})


def test_a_function_that_changes_the_model_spoils_no_later_score(tiny: Tiny) -> None:
    candidate, judged = as_candidate(open_checkpoint(tiny.model)), evaluator(tiny, "Vandal")
    first = judged.run(candidate, {"Vandal": ALL})
    assert judged.run(candidate, {"Vandal": ALL}) == first


def test_the_digest_covers_source_options_and_version(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [evaluator(tiny).tasks[0].digest, evaluator(tiny, options={"letter": "b"}).tasks[0].digest]
    monkeypatch.setattr(f"{JUDGES}.Surprise.version", "2")
    digests.append(evaluator(tiny).tasks[0].digest)
    for text in ("Mine", "Mine  # changed"):
        (tmp_path / "my_judge.py").write_text(f"from {JUDGES} import Surprise\nclass Mine(Surprise): ...  # {text}\n")
        digests.append(evaluator(tiny, "my_judge:Mine", tmp_path).tasks[0].digest)
        sys.modules.pop("my_judge")
    assert len(set(digests)) == 5
