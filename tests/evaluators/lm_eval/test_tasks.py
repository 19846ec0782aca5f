"""Which tasks are run, and how they are set up."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluators.harness import Harness
from evaluators.lm_eval.tasks import LoadedTask, load_tasks
from evaluators.make import require_acknowledged
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig
from tests.evaluators.conftest import (
    DOCUMENTS,
    Tiny,
    as_candidate,
    asked_of_lm_eval,
    make_harness,
    make_settings,
    select,
    write_tasks,
)

ALL = list(range(DOCUMENTS))
NAMES = ["tiny_choice", "tiny_generate", "tiny_likelihood"]


def load(folder: Path, *tasks: Any, **settings: Any) -> dict[str, LoadedTask]:
    return load_tasks(EvaluateSettings.model_validate({"tasks": tasks, "task_path": str(folder)} | settings), Path())


def with_groups(tiny: Tiny, folder: Path) -> Path:
    write_tasks(folder, select(tiny, *NAMES), tiny_choice={"tag": "tagged"}, tiny_likelihood={"tag": ["tagged"]})
    (folder / "inner.yaml").write_text(yaml.safe_dump({"group": "inner", "task": ["tiny_choice", "tiny_generate"]}))
    (folder / "outer.yaml").write_text(yaml.safe_dump({"group": "outer", "task": ["inner", "tiny_likelihood"]}))
    return folder


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["outer"], NAMES),
        (["inner"], ["tiny_choice", "tiny_generate"]),
        (["tiny_likelihood", "inner"], ["tiny_likelihood", "tiny_choice", "tiny_generate"]),
    ],
)
def test_groups_are_their_tasks(tiny: Tiny, tmp_path: Path, wanted: list[str], found: list[str]) -> None:
    tasks = load(with_groups(tiny, tmp_path / "t"), *wanted)
    assert list(tasks) == found
    for name, loaded in tasks.items():
        assert [dict(document) for document in loaded.eval_docs] == tiny.documents[name]


def test_tags_are_their_tasks(tiny: Tiny, tmp_path: Path) -> None:
    assert sorted(load(with_groups(tiny, tmp_path / "t"), "tagged")) == ["tiny_choice", "tiny_likelihood"]


def test_a_task_is_asked_for_once(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="'tiny_choice' is asked for twice"):
        load(with_groups(tiny, tmp_path / "t"), "tiny_choice", "inner")


def test_settings_of_a_group_are_those_of_its_tasks(tiny: Tiny, tmp_path: Path) -> None:
    wanted = {"task": "inner", "limit": 3, "gen_kwargs": {"max_gen_toks": 1}}
    tasks = load(with_groups(tiny, tmp_path / "t"), wanted, "tiny_likelihood", limit=4)
    assert [loaded.limit for loaded in tasks.values()] == [3, 3, 4]
    assert tasks["tiny_generate"].task.config.generation_kwargs["max_gen_toks"] == 1
    assert tasks["tiny_choice"].task.config.generation_kwargs is None


def shots(tiny: Tiny, folder: Path, **own: int | None) -> dict[str, int]:
    """num_fewshot of three tasks whose YAML says 0, 2 and nothing."""
    changes: dict[str, dict[str, Any]] = {"tiny_choice": {"num_fewshot": 0}, "tiny_generate": {"num_fewshot": 2}}
    write_tasks(folder, select(tiny, *NAMES), **changes)
    tasks = load(folder, *({"task": name, "num_fewshot": own.get(name)} for name in NAMES), num_fewshot=own.get("all"))
    return {name: loaded.task.config.num_fewshot for name, loaded in tasks.items()}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, [0, 2, 0]),
        ({"all": 1}, [0, 1, 1]),  # as lm-eval: a task that says 0 means it
        ({"tiny_choice": 3}, [3, 2, 0]),
        ({"all": 1, "tiny_generate": 0}, [0, 0, 1]),
    ],
)
def test_the_number_of_examples(tiny: Tiny, tmp_path: Path, own: dict[str, int], expected: list[int]) -> None:
    assert list(shots(tiny, tmp_path / "t", **own).values()) == expected


def test_generation_settings_replace_the_tasks(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.tasks)
    kwargs = {"max_gen_toks": 1, "until": ["a"]}
    theirs = asked_of_lm_eval(tiny.model, ["tiny_generate"], tiny.tasks, gen_kwargs=kwargs)["samples"]["tiny_generate"]
    harness = make_harness(tiny, tasks=["tiny_generate"], gen_kwargs=kwargs)
    candidate = as_candidate(open_checkpoint(tiny.model))
    assert harness.run(candidate, {"tiny_generate": ALL})["tiny_generate"] == {
        sample["doc_id"]: sample["exact_match"] for sample in theirs
    }
    requests = harness._suite._tasks["tiny_generate"].requests(harness._lm, ALL)
    assert [request.resps for request in requests] == [sample["resps"][0] for sample in theirs]


def test_generation_settings_of_a_task_that_generates_nothing_are_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidConfig, match="'tiny_choice' generates nothing"):
        load(tiny.tasks, {"task": "tiny_choice", "gen_kwargs": {"max_gen_toks": 1}})


def filtered(tiny: Tiny, folder: Path) -> Path:
    filters = [
        {"name": "as-is", "filter": [{"function": "take_first"}]},
        {"name": "loud", "filter": [{"function": "uppercase"}, {"function": "take_first"}]},
    ]
    return write_tasks(folder, select(tiny, "tiny_generate"), tiny_generate={"filter_list": filters})


def test_a_filter_can_be_chosen(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filtered(tiny, tmp_path / "t")
    monkeypatch.chdir(folder)
    theirs = asked_of_lm_eval(tiny.model, ["tiny_generate"], folder)["samples"]["tiny_generate"]
    found = []
    for name in ("as-is", "loud", None):
        harness = make_harness(tiny, folder=folder, tasks=["tiny_generate"], filter=name)
        ours = harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_generate": ALL})["tiny_generate"]
        wanted = name or "as-is"
        assert ours == {s["doc_id"]: s["exact_match"] for s in theirs if s["filter"] == wanted}
        found.append((ours, harness.tasks[0].digest))
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]
    assert found[0] == found[2]


def test_an_unknown_filter_is_refused_with_the_nearest(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no filter 'laud'") as raised:
        make_harness(tiny, folder=filtered(tiny, tmp_path / "t"), tasks=["tiny_generate"], filter="laud")
    assert raised.value.hint == "Did you mean 'loud'?"


def test_tasks_that_run_code_need_consent(tiny: Tiny, tmp_path: Path) -> None:
    code = "import os\n\ndef consent(document, results):\n    return {'ok': float(os.environ['HF_ALLOW_CODE_EVAL'])}\n"
    changes = {"unsafe_code": True, "metric_list": [{"metric": "ok", "aggregation": "mean", "higher_is_better": True}]}
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_choice"), tiny_choice=changes)
    (folder / "utils.py").write_text(code)
    with (folder / "tiny_choice.yaml").open("a") as file:
        file.write("process_results: !function utils.consent\n")
    (folder / "group.yaml").write_text(yaml.safe_dump({"group": "group", "task": ["tiny_choice"]}))
    before = os.environ.get("HF_ALLOW_CODE_EVAL")
    for name in ("tiny_choice", "group"):
        with pytest.raises(InvalidConfig, match="'tiny_choice' runs code") as raised:
            make_harness(tiny, folder=folder, tasks=[name], allow_task_code=True)
        assert "allow_code: true" in raised.value.hint
        harness = make_harness(tiny, folder=folder, tasks=[name], allow_code=True, allow_task_code=True)
        found = harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": [0, 1]})
        assert found == {"tiny_choice": {0: 1.0, 1: 1.0}}
    assert os.environ.get("HF_ALLOW_CODE_EVAL") == before


def test_a_task_that_cannot_be_loaded_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_choice"))
    (folder / "tiny_choice.jsonl").unlink()
    with pytest.raises(InvalidConfig, match="'tiny_choice' could not be loaded"):
        load(folder, "tiny_choice")


def test_the_version_is_the_authors(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "t", select(tiny, *NAMES), tiny_choice={"metadata": {"version": 2.5}})
    versions = {task.name: task.version for task in make_harness(tiny, folder=folder).tasks}
    assert versions == {"tiny_choice": "2.5", "tiny_generate": "", "tiny_likelihood": ""}


def test_one_metric_of_another_name_is_the_metric(tiny: Tiny, tmp_path: Path) -> None:
    # As in code benchmarks: the metric pass_at_k reports pass@1.
    changes = {"metric_list": [{"metric": "pass_at_k", "aggregation": "mean", "higher_is_better": True}]}
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_choice"), tiny_choice=changes)
    (folder / "utils.py").write_text("def one(document, results):\n    return {'pass@1': document['label']}\n")
    with (folder / "tiny_choice.yaml").open("a") as file:
        file.write("process_results: !function utils.one\n")
    found = make_harness(tiny, folder=folder, tasks=["tiny_choice"], allow_task_code=True).run(
        as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": ALL}
    )
    assert found["tiny_choice"] == {i: document["label"] for i, document in enumerate(tiny.documents["tiny_choice"])}


def test_selecting_on_lm_evals_own_tasks_must_be_meant(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval.tasks

    class TinyDefaults(lm_eval.tasks.TaskManager):  # stands for lm-eval's own tasks, which want the network
        def __init__(self, include_path: Any = None, include_defaults: bool = True) -> None:
            places = [str(tiny.tasks)] * include_defaults + [include_path] * bool(include_path)
            super().__init__(include_path=places, include_defaults=False)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", TinyDefaults)
    monkeypatch.chdir(tiny.tasks)
    own = write_tasks(tmp_path / "own", {"tiny_choice": tiny.documents["tiny_choice"]})
    settings = make_settings(tasks=["tiny_choice", "tiny_generate"], task_path=str(own))
    tasks = Harness(settings, open_checkpoint(tiny.model)).tasks
    assert [task.public for task in tasks] == [False, True]
    with pytest.raises(InvalidConfig, match=r"public benchmarks: tiny_generate\.") as raised:
        require_acknowledged(settings, tasks)
    assert "public_benchmarks: acknowledged" in raised.value.hint
    require_acknowledged(settings, tasks[:1])
    require_acknowledged(settings.model_copy(update={"public_benchmarks": "acknowledged"}), tasks)


def test_tasks_are_written_as_a_run_file_says_them() -> None:
    tasks = ["one", {"task": "two", "num_fewshot": 0}, {"task": "three", "gen_kwargs": {"until": ["."]}}]
    settings = EvaluateSettings.model_validate({"tasks": tasks})
    assert settings.model_dump(mode="json")["tasks"] == tasks
    assert EvaluateSettings.model_validate_json(json.dumps(settings.model_dump(mode="json"))) == settings
