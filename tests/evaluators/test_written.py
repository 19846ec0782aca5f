"""lm-eval on written folders: the backend hf here, the others by what is asked of them."""

import json
import os
import shutil
import sys
import time
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import evaluators.written as module
from evaluators.base import Candidate
from evaluators.lm_eval.backend import answer
from evaluators.written import WrittenHarness, write_candidate
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed, InputsChanged, InvalidConfig, NonFiniteWeights
from tests.evaluators.conftest import DOCUMENTS, Tiny, as_candidate, make_harness, make_settings, write_llama

ALL = list(range(DOCUMENTS))


def written(tiny: Tiny, tasks: list[Any] | None = None, **options: Any) -> WrittenHarness:
    chosen = {"tasks": tasks or sorted(tiny.documents), "task_path": str(tiny.tasks), "written": options}
    return WrittenHarness(make_settings(**chosen), open_checkpoint(tiny.model))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend answers in this process, which saves the seconds that a process takes to import it."""
    monkeypatch.setattr(module, "running", lambda command, log: nullcontext())
    monkeypatch.setattr(module, "finish", lambda process, what, log, seconds: _answer(log.parent / "request.json"))


def _answer(request: Path) -> None:
    asked = json.loads(request.read_text())
    Path(asked["answer"]).write_text(json.dumps(answer(asked)))


def test_the_written_model_scores_as_the_live_one_in_a_process_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    evaluator, live = written(tiny, scratch=str(tmp_path)), make_harness(tiny)
    documents = {"tiny_choice": [3, 8, 15], "tiny_generate": ALL, "tiny_likelihood": [0, 7]}
    candidate = as_candidate(open_checkpoint(tiny.model), -0.7)
    assert evaluator.run(candidate, documents) == live.run(candidate, documents)
    assert not list(tmp_path.iterdir())
    assert [task.documents for task in evaluator.tasks] == [task.documents for task in live.tasks]
    assert {task.digest for task in evaluator.tasks}.isdisjoint(task.digest for task in live.tasks)
    assert evaluator.conditions["backend"] == "hf"


@pytest.mark.usefixtures("here")
def test_few_shot_prompts_are_those_of_the_live_model(tiny: Tiny) -> None:
    # Examples come from the search split here too: the other process draws the same.
    tasks = [{"task": name, "num_fewshot": 2} for name in ("tiny_likelihood", "tiny_choice")]
    candidate = as_candidate(open_checkpoint(tiny.model))
    documents = {"tiny_likelihood": ALL, "tiny_choice": [1, 9]}
    live = make_harness(tiny, tasks=tasks).run(candidate, documents)  # type: ignore[arg-type]
    assert written(tiny, tasks).run(candidate, documents) == live


@pytest.mark.usefixtures("here")
def test_files_that_changed_since_they_were_digested_end_it(tiny: Tiny, tmp_path: Path) -> None:
    model, tasks = (shutil.copytree(place, tmp_path / place.name) for place in (tiny.model, tiny.tasks))
    settings = make_settings(tasks=["tiny_choice"], task_path=str(tasks), written={})
    evaluator = WrittenHarness(settings, open_checkpoint(model))
    candidate = as_candidate(open_checkpoint(model))
    rows = tasks / "tiny_choice.jsonl"
    saved, date = rows.read_text(), rows.stat().st_mtime_ns
    rows.write_text(saved.replace('"label": 0', '"label": 1'))
    os.utime(rows, ns=(date, date))
    with pytest.raises(InputsChanged, match="task tiny_choice changed since"):
        evaluator.run(candidate, {"tiny_choice": [0]})
    rows.write_text(saved)
    (model / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputsChanged, match=r"tokenizer_config\.json changed since"):
        evaluator.run(candidate, {"tiny_choice": [0]})


def test_what_is_wrong_over_there_is_told_here(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = written(tiny, ["tiny_choice"])
    request = {"settings": {"tasks": ["gone"], "task_path": "gone"}, "root": "/", "backend": "hf", "decisive": {}}
    found = answer(request)["failed"]
    assert found["message"] == "There is no task folder /gone."
    monkeypatch.setattr(evaluator, "_ask", lambda *_: {"failed": found})
    with pytest.raises(EvaluationFailed, match="no task folder /gone"):
        evaluator.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": [0]})


def test_weights_that_are_no_numbers_are_not_written(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny.model)
    with pytest.raises(EvaluationFailed, match="NaN or infinity in the tensor"):
        write_candidate(tmp_path / "nan", as_candidate(checkpoint, float("nan")), checkpoint, "stored")
    with pytest.raises(NonFiniteWeights, match="beyond the range"):
        write_candidate(tmp_path / "large", as_candidate(checkpoint, 1e6), checkpoint, "float16")


def test_a_backend_that_fails_tells_why(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho CUDA is not what it was\nexit 3\n")
    broken.chmod(0o755)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(module.sys, "executable", str(broken))
    evaluator = written(tiny, ["tiny_choice"], scratch=str(tmp_path / "scratch"))
    with pytest.raises(EvaluationFailed, match=r"backend hf, asked about .* ended with code 3(.|\n)*CUDA is not what"):
        evaluator.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": [0]})
    assert not list((tmp_path / "scratch").iterdir())


def test_an_unknown_backend_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidConfig, match="no backend 'vlm'") as raised:
        written(tiny, ["tiny_choice"], backend="vlm")
    assert raised.value.hint == "Did you mean 'vllm'?"


@pytest.mark.parametrize("dtype", ["stored", "bfloat16", "float16"])
def test_the_folder_is_a_model(tiny: Tiny, tmp_path: Path, dtype: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    template, other = open_checkpoint(tiny.model), open_checkpoint(write_llama(tmp_path / "other", 5))
    write_candidate(tmp_path / "model", as_candidate(other), template, dtype)
    expected = torch.float32 if dtype == "stored" else getattr(torch, dtype)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert weights.keys() == other.tensors.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, other.tensor(name).to(expected)), name
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == expected
    ids = AutoTokenizer.from_pretrained(tmp_path / "model").encode("abc")
    assert ids == AutoTokenizer.from_pretrained(tiny.model).encode("abc")


def test_a_server_runs_meanwhile(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What gguf and the APIs need, without them: a server of the folder's files.
    code = (
        "import http.server, sys, functools\n"
        "handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), handler)\n"
        f"open({str(tmp_path / 'port')!r}, 'w').write(str(server.server_port))\n"
        "server.serve_forever()"
    )
    asked = []

    def wait_for(url: str, *_: Any) -> None:
        while not (tmp_path / "port").exists() or not (tmp_path / "port").read_text():
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{(tmp_path / 'port').read_text()}/config.json") as found:
            asked.append((url, json.load(found)["model_type"]))

    def finish(process: Any, what: str, log: Path, seconds: float) -> None:
        (log.parent / "answer.json").write_text(json.dumps({"results": {"tiny_choice": {"4": 0.5}}}))

    monkeypatch.setattr(module, "wait_for", wait_for)
    monkeypatch.setattr(module, "finish", finish)
    serve = [sys.executable, "-c", code, "{folder}"]
    evaluator = written(tiny, ["tiny_choice"], serve=serve, url="http://127.0.0.1/", scratch=str(tmp_path))
    assert evaluator.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": [4]}) == {"tiny_choice": {4: 0.5}}
    assert asked == [("http://127.0.0.1/", "llama")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"backend": "vllm", "model_args": {"max_model_len": 64}}, {"pretrained": "FOLDER", "max_model_len": 64}),
        ({"backend": "gguf", "model_args": {"base_url": "http://x"}}, {"base_url": "http://x"}),
        (
            {
                "backend": "local-completions",
                "model_args": {"model": "m", "tokenizer": "{folder}", "deep": ["{folder}/a"]},
            },
            {"model": "m", "tokenizer": "FOLDER", "deep": ["FOLDER/a"]},
        ),
    ],
)
def test_what_a_backend_is_given(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    requests = []

    def finish(process: Any, what: str, log: Path, seconds: float) -> None:
        requests.append(json.loads((log.parent / "request.json").read_text()))
        (log.parent / "answer.json").write_text(json.dumps({"results": {"tiny_choice": {"4": 0.5}}}))

    monkeypatch.setattr(module, "running", lambda command, log: nullcontext())
    monkeypatch.setattr(module, "finish", finish)
    evaluator = written(tiny, ["tiny_choice"], **options)
    assert evaluator.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": [4]}) == {"tiny_choice": {4: 0.5}}
    folder = requests[0]["answer"].replace("answer.json", "model")
    assert json.loads(json.dumps(requests[0]["model_args"]).replace(folder, "FOLDER")) == expected


def test_the_digest_changes_with_the_backend(tiny: Tiny) -> None:
    changes: list[dict[str, Any]] = [{}, {"backend": "vllm"}, {"dtype": "bfloat16"}, {"model_args": {"a": 1}}]
    digests = [written(tiny, ["tiny_choice"], **options).tasks[0].digest for options in changes]
    assert len(set(digests)) == 4
    assert written(tiny, ["tiny_choice"], scratch="/tmp", seconds=5).tasks[0].digest == digests[0]


def test_a_candidate_of_other_tensors_fails(tiny: Tiny) -> None:
    checkpoint = open_checkpoint(tiny.model)
    other = Candidate("other", "other", lambda: iter([("nothing.weight", torch.zeros(2))]))
    with pytest.raises(EvaluationFailed, match=r"nothing\.weight"):
        written(tiny, ["tiny_choice"]).run(other, {"tiny_choice": [0]})
    some = Candidate("some", "some", lambda: iter([("lm_head.weight", checkpoint.tensor("lm_head.weight"))]))
    with pytest.raises(EvaluationFailed, match="never written"):
        written(tiny, ["tiny_choice"]).run(some, {"tiny_choice": [0]})
