import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.base import Candidate
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from evaluators.harness import Harness, load_tasks
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed, InvalidConfig, ReferenceNotFound
from tests.evaluators.conftest import (
    DOCUMENTS,
    Tiny,
    as_candidate,
    asked_of_lm_eval,
    few_shot,
    make_harness,
    make_settings,
    select,
    write_documents,
    write_tasks,
)

ALL = list(range(DOCUMENTS))
TASKS = ["tiny_choice", "tiny_generate", "tiny_likelihood"]


def test_results_are_lm_evals_own(tiny: Tiny, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"tiny_choice": [1, 2, 5, 6, 20], "tiny_generate": [0, 3, 4, 9, 23], "tiny_likelihood": [0, 2, 3, 11, 17]}
    monkeypatch.chdir(tiny.tasks)  # lm-eval counts data files from the working directory
    theirs = asked_of_lm_eval(tiny.model, TASKS, tiny.tasks, samples=chosen)
    ours = harness.run(as_candidate(open_checkpoint(tiny.model)), chosen)
    for task in harness.tasks:
        expected = {sample["doc_id"]: sample[task.metric] for sample in theirs["samples"][task.name]}
        assert sorted(expected) == chosen[task.name]
        assert ours[task.name] == expected
        mean = sum(ours[task.name].values()) / len(chosen[task.name])
        assert mean == pytest.approx(theirs["results"][task.name][f"{task.metric},none"])
        assert 0 < mean < 1


def test_likelihoods_are_lm_evals_own(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # To the last bit: the same requests in the same batches.
    rolling = {"tiny_likelihood": {"output_type": "loglikelihood_rolling", "doc_to_target": "{{prompt}}{{answer}}"}}
    metrics = [{"metric": name} for name in ("byte_perplexity", "word_perplexity", "bits_per_byte")]
    rolling["tiny_likelihood"]["metric_list"] = metrics  # type: ignore[assignment]
    plain = write_tasks(tmp_path / "plain", select(tiny, *TASKS))
    rolled = write_tasks(tmp_path / "rolling", select(tiny, "tiny_likelihood"), **rolling)
    for folder, names in {plain: ["tiny_choice", "tiny_likelihood"], rolled: ["tiny_likelihood"]}.items():
        monkeypatch.chdir(folder)
        theirs = asked_of_lm_eval(tiny.model, names, folder)["samples"]
        harness = make_harness(tiny, folder=folder, tasks=names)
        harness.run(as_candidate(open_checkpoint(tiny.model)), dict.fromkeys(names, ALL))
        for name in names:
            ours: dict[int, list[Any]] = {}
            for request in harness._suite._tasks[name].requests(harness._lm, ALL):
                ours.setdefault(request.doc_id, []).append(request.resps)
            assert ours == {sample["doc_id"]: sample["resps"] for sample in theirs[name]}


def test_perplexities_of_a_text_are_its_likelihood_per_unit(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = {"byte_perplexity": 1.0, "word_perplexity": 1.0, "bits_per_byte": math.log(2)}
    changes = {
        "output_type": "loglikelihood_rolling",
        "doc_to_target": "{{prompt}} {{answer}}",
        "metric_list": [{"metric": metric} for metric in units],
    }
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_likelihood"), tiny_likelihood=changes)
    monkeypatch.chdir(folder)
    theirs = asked_of_lm_eval(tiny.model, ["tiny_likelihood"], folder)["samples"]["tiny_likelihood"]
    for metric, unit in units.items():
        harness = make_harness(tiny, folder=folder, tasks=["tiny_likelihood"], metric=metric)
        ours = harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_likelihood": ALL})["tiny_likelihood"]
        entries = {sample["doc_id"]: sample[metric] for sample in theirs}  # of likelihood and number of units
        assert ours == pytest.approx({i: total / count / unit for i, (total, count) in entries.items()}, rel=1e-12)
        assert max(ours.values()) < 0


def test_the_perplexity_of_answers_is_their_likelihood(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.tasks)
    theirs = asked_of_lm_eval(tiny.model, ["tiny_likelihood"], tiny.tasks)
    harness = make_harness(tiny, tasks=["tiny_likelihood"], metric="perplexity")
    ours = harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_likelihood": ALL})["tiny_likelihood"]
    assert ours == {sample["doc_id"]: sample["perplexity"] for sample in theirs["samples"]["tiny_likelihood"]}
    mean = sum(ours.values()) / len(ours)
    assert math.exp(-mean) == pytest.approx(theirs["results"]["tiny_likelihood"]["perplexity,none"])
    assert harness.tasks[0].metric == "log-likelihood of perplexity"


def test_blimp_is_lm_evals_own(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shared / "eval-data" / "blimp_anaphor_gender_agreement.jsonl"
    config = {
        "task": "blimp",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "blimp.yaml").write_text(json.dumps(config))
    model = shared / "models" / "stories260K"
    chosen = {"blimp": list(range(0, 1000, 17))}
    theirs = asked_of_lm_eval(model, ["blimp"], tmp_path, samples=chosen)["samples"]["blimp"]
    checkpoint = open_checkpoint(model)
    settings = make_settings(tasks=["blimp"], task_path=str(tmp_path))
    ours = Harness(settings, checkpoint).run(as_candidate(checkpoint), chosen)["blimp"]
    assert ours == {sample["doc_id"]: sample["acc"] for sample in theirs}
    assert 0.5 < sum(ours.values()) / len(ours) < 1


def test_results_are_what_the_model_does(tiny: Tiny, harness: Harness) -> None:
    found = harness.run(as_candidate(open_checkpoint(tiny.model)), dict.fromkeys(TASKS, ALL))
    assert found == tiny.truth
    assert all(0 < sum(values.values()) < DOCUMENTS for values in found.values())


def test_results_belong_to_weights_and_documents_alone(tiny: Tiny, harness: Harness) -> None:
    one, other = (as_candidate(open_checkpoint(tiny.model), factor) for factor in (1.0, -0.7))
    everything, some = (dict.fromkeys(TASKS, documents) for documents in (ALL, [23, 4, 3]))
    first = harness.run(one, everything)
    assert harness.run(one, everything) == first
    assert harness.run(other, everything) != first
    assert harness.run(one, everything) == first
    few = harness.run(one, some)
    assert few == {name: {i: first[name][i] for i in (3, 4, 23)} for name in TASKS}
    assert harness.run(one, {"tiny_choice": [7]}) == {"tiny_choice": {7: first["tiny_choice"][7]}}


def test_a_candidate_is_loaded_once(tiny: Tiny, harness: Harness) -> None:
    checkpoint, loads = open_checkpoint(tiny.model), list[str]()

    def candidate(factor: float) -> Candidate:
        given = as_candidate(checkpoint, factor)
        return Candidate(given.id, f"counted {factor}", lambda: loads.append(str(factor)) or given.tensors())  # type: ignore[func-returns-value]

    one, other = candidate(1.0), candidate(-0.7)
    first = [harness.run(one, {"tiny_choice": [i]}) for i in ALL[:3]]
    assert loads == ["1.0"]
    harness.run(other, {"tiny_choice": [0]})
    assert [harness.run(one, {"tiny_choice": [i]}) for i in ALL[:3]] == first
    assert loads == ["1.0", "-0.7", "1.0"]


def test_weights_that_somebody_changed_are_loaded_again(tiny: Tiny, harness: Harness) -> None:
    candidate = as_candidate(open_checkpoint(tiny.model))
    expected = harness.run(candidate, {"tiny_likelihood": ALL})
    harness._live.model.lm_head.weight.mul_(-1)
    assert harness.run(candidate, {"tiny_likelihood": ALL}) == expected


def test_two_models_with_one_cache_are_both_evaluated(tiny: Tiny, harness: Harness, tmp_path: Path) -> None:
    scorer = CachedEvaluator(harness, ScoreCache(tmp_path / "scores.sqlite"))
    one, other = (as_candidate(open_checkpoint(tiny.model), factor) for factor in (1.0, -0.7))
    scores = {candidate: scorer.score(candidate, "search") for candidate in (one, other)}
    for candidate, score in scores.items():
        uncached = harness.run(candidate, {task.name: task.documents["search"] for task in harness.tasks})
        assert [task.values for task in score.tasks] == [
            tuple(results[i] for i in sorted(results)) for results in uncached.values()
        ]
    assert scores[one] != scores[other]


def test_the_models_own_generation_settings_hold(
    tiny: Tiny, harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny.model, tmp_path / "model")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 1e3}))
    penalised = make_harness(tiny, folder, tasks=["tiny_generate"])
    ours = penalised.run(as_candidate(open_checkpoint(folder)), {"tiny_generate": ALL})["tiny_generate"]
    monkeypatch.chdir(tiny.tasks)
    theirs = asked_of_lm_eval(folder, ["tiny_generate"], tiny.tasks)["samples"]["tiny_generate"]
    assert ours == {sample["doc_id"]: sample["exact_match"] for sample in theirs}
    assert ours != tiny.truth["tiny_generate"]
    assert penalised.tasks[0].digest not in {task.digest for task in harness.tasks}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_gives_nan_fails(tiny: Tiny, harness: Harness, task: str, value: float) -> None:
    checkpoint = open_checkpoint(tiny.model)
    broken = Candidate(
        "broken", "b", lambda: ((name, torch.full_like(checkpoint.tensor(name), value)) for name in checkpoint.tensors)
    )
    with pytest.raises(EvaluationFailed, match="broken gives NaN"):
        harness.run(broken, {task: [0, 1]})
    assert harness.run(as_candidate(checkpoint), {task: [0]}) == {task: {0: tiny.truth[task][0]}}


def test_nan_on_one_document_alone_fails(tiny: Tiny, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever lm-eval makes of a likelihood of NaN, it must not become a score.
    answers = iter([(-1.0, True), (math.nan, False)])
    monkeypatch.setattr(harness._lm, "loglikelihood", lambda requests: [next(answers) for _ in requests])
    with pytest.raises(EvaluationFailed, match="gives NaN on document 5 of tiny_likelihood"):
        harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_likelihood": [2, 5]})


def test_lower_is_better_is_turned_round(tiny: Tiny, tmp_path: Path) -> None:
    metric = {"metric": "acc", "aggregation": "mean", "higher_is_better": False}
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_likelihood"), tiny_likelihood={"metric_list": [metric]})
    harness = make_harness(tiny, folder=folder, tasks=["tiny_likelihood"])
    found = harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_likelihood": ALL})
    assert found == {"tiny_likelihood": {i: -value for i, value in tiny.truth["tiny_likelihood"].items()}}


# Few-shot examples


def prompts(harness: Harness, documents: list[int], task: str = "tiny_choice") -> dict[int, list[Any]]:
    requests = harness._suite._tasks[task].requests(harness._lm, documents)
    return {request.doc_id: [request.args, request.doc] for request in requests}


def test_few_shot_prompts_depend_on_the_document_alone(tiny: Tiny, tmp_path: Path) -> None:
    folder = few_shot(tiny, tmp_path / "t")
    one, other = (make_harness(tiny, folder=folder, tasks=["tiny_choice"]) for _ in range(2))
    every = prompts(one, ALL)
    assert len({args[0].rpartition(" ")[0] for args, _ in every.values()}) > 5  # the examples do vary
    assert prompts(one, [9, 17]) == {9: every[9], 17: every[17]}
    assert prompts(other, [17]) == {17: every[17]}
    assert prompts(other, ALL) == every


def test_few_shot_results_are_those_of_a_whole_run_of_lm_eval(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = few_shot(tiny, tmp_path / "t")
    monkeypatch.chdir(folder)
    theirs = asked_of_lm_eval(tiny.model, ["tiny_choice"], folder)["samples"]["tiny_choice"]
    harness = make_harness(tiny, folder=folder, tasks=["tiny_choice"])
    assert {i: args for i, (args, _) in prompts(harness, ALL).items()} == {
        s["doc_id"]: s["arguments"][-1] for s in theirs
    }
    ours = harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": [3, 8, 15]})
    assert ours == {"tiny_choice": {s["doc_id"]: s["acc"] for s in theirs if s["doc_id"] in (3, 8, 15)}}


# Which task, which metric, where


def test_an_unknown_task_is_refused_with_the_nearest(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.tasks

    class WithoutDefaults(lm_eval.tasks.TaskManager):  # indexing lm-eval's own tasks takes ten seconds
        def __init__(self, **options: Any) -> None:
            super().__init__(**options | {"include_defaults": False})

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", WithoutDefaults)
    settings = EvaluateSettings(tasks=["tiny_choise"], task_path=str(tiny.tasks))
    with pytest.raises(InvalidConfig, match="tiny_choise") as raised:
        load_tasks(settings, Path())
    assert raised.value.hint == "Did you mean 'tiny_choice'?"


def test_an_unknown_metric_is_refused_with_the_nearest(tiny: Tiny) -> None:
    with pytest.raises(InvalidConfig, match="no metric 'acc_nrom'") as raised:
        make_harness(tiny, tasks=["tiny_choice"], metric="acc_nrom")
    assert raised.value.hint == "Did you mean 'acc_norm'?"


def test_a_metric_that_is_no_mean_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    metrics = [{"metric": "f1", "aggregation": "f1", "higher_is_better": True}, {"metric": "acc"}]
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_choice"), tiny_choice={"metric_list": metrics})
    with pytest.raises(InvalidConfig, match="'f1' of task tiny_choice is not a mean") as raised:
        make_harness(tiny, folder=folder, tasks=["tiny_choice"])
    assert "acc" in raised.value.hint


def test_another_metric_can_be_chosen(tiny: Tiny) -> None:
    harness = make_harness(tiny, tasks=["tiny_choice"], metric="acc_norm")
    assert [task.metric for task in harness.tasks] == ["acc_norm"]
    assert [task.metric for task in make_harness(tiny, tasks=["tiny_choice"]).tasks] == ["acc"]


def test_a_missing_task_folder_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ReferenceNotFound, match="nowhere"):
        load_tasks(EvaluateSettings(tasks=["tiny_choice"], task_path="nowhere"), tiny.tasks)


def test_too_few_documents_are_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidConfig, match=r"too few documents for its search split: 0 of \d+") as refusal:
        make_harness(tiny, tasks=["tiny_choice"], search_fraction=1e-6)
    assert "search_fraction" in refusal.value.hint


@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_a_task_without_documents_is_refused_by_its_file(tiny: Tiny, content: str, tmp_path: Path) -> None:
    shutil.copytree(tiny.tasks, tmp_path / "tasks")
    for file in (tmp_path / "tasks").glob("*.jsonl"):
        file.write_text(content)
    with pytest.raises(InvalidConfig, match=r"\.jsonl has no documents"):
        load_tasks(EvaluateSettings(tasks=["tiny_choice"], task_path=str(tmp_path / "tasks")), tmp_path)


def test_a_limit_holds_in_each_split(tiny: Tiny) -> None:
    everything, limited = make_harness(tiny), make_harness(tiny, limit=3)
    for task, few in zip(everything.tasks, limited.tasks, strict=True):
        assert sorted([*task.documents["search"], *task.documents["held_out"]]) == ALL
        for split in ("search", "held_out"):
            assert len(few.documents[split]) == 3
            assert set(few.documents[split]) < set(task.documents[split])


@pytest.mark.parametrize(
    "files",
    [
        {"test": "below/tiny_choice.jsonl"},
        {"test": ["below/tiny_choice.jsonl", "below/more.jsonl"]},
        "below/tiny_choice.jsonl",
    ],
    ids=["by split", "several files", "one file"],
)
def test_data_files_count_from_the_tasks_own_folder(tiny: Tiny, tmp_path: Path, files: Any) -> None:
    split = {"test_split": "train"} if isinstance(files, str) else {}  # what datasets calls a file without a split
    rows = tiny.documents["tiny_choice"]
    folder = tmp_path / "tasks"
    write_tasks(folder / "deep", {"tiny_choice": rows}, tiny_choice={"dataset_kwargs": {"data_files": files}} | split)
    (folder / "deep" / "below").mkdir()
    write_documents(folder / "deep" / "below" / "tiny_choice.jsonl", rows[:4])
    write_documents(folder / "deep" / "below" / "more.jsonl", rows[4:6])
    tasks = load_tasks(EvaluateSettings(tasks=["tiny_choice"], task_path="tasks"), tmp_path)
    expected = rows[:6] if isinstance(files, dict) and isinstance(files["test"], list) else rows[:4]
    assert [dict(document) for document in tasks["tiny_choice"].eval_docs] == expected


# Chat templates


CHAT = "{% for message in messages %}<s>{{ message['content'] }}={% endfor %}{% if add_generation_prompt %}a{% endif %}"


def with_chat(tiny: Tiny, folder: Path) -> Path:
    shutil.copytree(tiny.model, folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


@pytest.mark.parametrize("multiturn", [True, False])
def test_chat_prompts_are_lm_evals_own(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multiturn: bool
) -> None:
    model, folder = with_chat(tiny, tmp_path / "model"), few_shot(tiny, tmp_path / "t")
    options = {"apply_chat_template": True, "system_instruction": "abc", "fewshot_as_multiturn": multiturn}
    monkeypatch.chdir(folder)
    theirs = asked_of_lm_eval(model, ["tiny_choice"], folder, **options)["samples"]["tiny_choice"]
    harness = make_harness(tiny, model, folder, tasks=["tiny_choice"], **options)
    ours = harness.run(as_candidate(open_checkpoint(model)), {"tiny_choice": ALL})["tiny_choice"]
    assert ours == {sample["doc_id"]: sample["acc"] for sample in theirs}
    assert {i: args for i, (args, _) in prompts(harness, ALL).items()} == {
        sample["doc_id"]: sample["arguments"][-1] for sample in theirs
    }
    assert all("<s>abc" in args[0] for args, _ in prompts(harness, ALL).values())


def test_a_chat_template_that_is_not_there_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"has none, but evaluate\.apply_chat_template is True"):
        make_harness(tiny, tasks=["tiny_choice"], apply_chat_template=True)
    with pytest.raises(InvalidConfig, match="has one, without a name"):
        make_harness(tiny, with_chat(tiny, tmp_path / "model"), tasks=["tiny_choice"], apply_chat_template="rag")
