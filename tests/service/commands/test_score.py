import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from evaluators.base import Candidate, Evaluator
from kinship.errors import InvalidConfig
from service.commands.score import read_settings
from tests.evaluators.test_model_kinds import REFUSED, write
from tests.service.conftest import Kinship

if TYPE_CHECKING:
    from service.demo.family import Family


def test_settings_come_from_file_options_and_assignments(tmp_path: Path) -> None:
    file = tmp_path / "evaluate.yml"
    file.write_text(yaml.safe_dump({"tasks": ["a"], "limit": 5, "batch_size": 8}))
    settings = read_settings(file, {"limit": 7, "device": None}, ["apply_chat_template=true", "gen_kwargs={top_k: 3}"])
    assert [task.task for task in settings.tasks] == ["a"]
    assert (settings.limit, settings.batch_size, settings.device) == (7, 8, "cpu")
    assert settings.apply_chat_template is True
    assert settings.gen_kwargs == {"top_k": 3}
    run_file = tmp_path / "run.yml"
    run_file.write_text(yaml.safe_dump({"base": "x", "evaluate": {"tasks": ["b"]}}))
    assert [task.task for task in read_settings(run_file, {}, []).tasks] == ["b"]


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["limt=3"], "unknown key 'limt'"),
        (["limit"], "says no value"),
        (["limit={"], "not valid YAML"),
        ([], "nothing"),
    ],
)
def test_settings_that_make_no_sense(assignments: list[str], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        read_settings(None, {"tasks": ["a"]} if assignments else {}, assignments)


def tasks_of(family: "Family", count: int = 2) -> list[object]:
    return ["--tasks", ",".join(family.task_names[:count]), "--task-path", family.tasks, "--batch-size", 256]


def test_one_model_and_its_cache(kinship: Kinship, family: "Family", tmp_path: Path, forwards: list[str]) -> None:
    options = [*tasks_of(family, 4), "--cache", tmp_path / "cache.sqlite", "--json"]
    outcome = kinship("score", family.base, *options)
    assert outcome.code == 0, outcome.err
    first = json.loads(outcome.out)
    (model,) = first["models"]
    assert model["splits"].keys() == {"search", "held_out"}
    assert model["splits"]["search"]["tasks"].keys() == set(family.task_names)
    assert 0 < model["splits"]["search"]["value"] < 1
    assert model["conditions"]["device"] == "cpu"
    assert all(len(task["digest"]) == 64 for task in model["splits"]["search"]["tasks"].values())
    assert forwards
    forwards.clear()
    assert json.loads(kinship("score", family.base, *options).out) == first
    assert forwards == []  # the same model twice: no forward pass

    (task, *_) = family.task_names
    fewer = ["--tasks", task, "--task-path", family.tasks, "--cache", tmp_path / "other.sqlite", "--json"]
    count = {}
    for limit in (5, 20):
        found = json.loads(kinship("score", family.founders[0], *fewer, "--limit", limit).out)["models"][0]
        count[limit] = found["splits"]["search"]["documents"]
        listed = json.loads(kinship("cache", "list", "--cache", tmp_path / "other.sqlite", "--json").out)
        assert [entry["documents"] for entry in listed["entries"]] == [2 * limit]
    assert count == {5: 5, 20: 20}


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by the model's class at every forward pass of a Llama."""
    from transformers import LlamaForCausalLM

    forward, seen = LlamaForCausalLM.forward, list[str]()

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(type(self).__name__)
        return forward(self, *arguments, **options)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    return seen


def test_several_models_are_compared_with_the_first(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    copy, broken = tmp_path / "copy", tmp_path / "broken"
    for place in (copy, broken):
        shutil.copytree(family.base, place)
    config = json.loads((copy / "config.json").read_text()) | {"transformers_version": "1.0"}
    (copy / "config.json").write_text(json.dumps(config))
    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}, broken / "model.safetensors"
    )
    table, out = tmp_path / "scores.csv", tmp_path / "scores.json"
    models = [family.base, family.founders[0], copy, broken]
    outcome = kinship("score", *models, *tasks_of(family), "--out", table, "--out", out)
    assert outcome.code == 1  # one could not be scored
    assert "gives NaN" in outcome.err
    assert "Search split" in outcome.out
    assert "Held-out split" in outcome.out
    base, founder, same, failed = json.loads(out.read_text())["models"]
    assert base["versus_first"] == {}
    assert same["versus_first"]["search"]["value"] == 0
    assert same["versus_first"]["search"]["low"] == same["versus_first"]["search"]["high"] == 0
    assert same["splits"] == base["splits"]  # what config.json says of its own making does not count
    gain = founder["versus_first"]["held_out"]
    assert gain["value"] == pytest.approx(founder["splits"]["held_out"]["value"] - base["splits"]["held_out"]["value"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert failed["error"]["code"] in ("evaluation_failed", "non_finite_weights")
    assert failed["splits"] == {}

    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 3 * 2 * 3  # models, splits, two tasks and their mean
    means = [row for row in rows if row["task"] == "mean of tasks" and row["model"] == str(family.founders[0])]
    assert float(means[1]["difference_to_first"]) == pytest.approx(gain["value"])
    parts = [float(row["value"]) for row in rows if row["model"] == str(family.base) and row["split"] == "search"]
    assert parts[2] == pytest.approx(np.mean(parts[:2]))

    again = kinship("score", *models[:1], *tasks_of(family), "--out", table)
    assert again.code == 1
    assert "--force" in again.err
    assert "unknown ending" in kinship("score", *models[:1], *tasks_of(family), "--out", tmp_path / "scores.txt").err


def test_models_run_under_other_conditions_are_not_compared(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(family.base, other)
    config = json.loads((other / "config.json").read_text()) | {"rms_norm_eps": 0.5}
    (other / "config.json").write_text(json.dumps(config))
    outcome = kinship("score", family.base, other, *tasks_of(family, 1), "--limit", 10, "--json")
    assert outcome.code == 0, outcome.err
    base, changed = json.loads(outcome.out)["models"]
    assert changed["versus_first"] == {}
    assert changed["splits"]["search"]["tasks"] != base["splits"]["search"]["tasks"]
    shown = kinship("score", family.base, other, *tasks_of(family, 1), "--limit", 10)
    assert "other conditions than base" in shown.err


def test_two_models_with_one_cache_are_both_run(
    kinship: Kinship, family: "Family", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluators.harness import Harness

    asked: list[str] = []
    run = Harness.run

    def counted(self: Evaluator, candidate: Candidate, documents: Any) -> Any:
        asked.append(candidate.id)
        return run(self, candidate, documents)  # type: ignore[arg-type]

    monkeypatch.setattr(Harness, "run", counted)
    options = [*tasks_of(family, 1), "--limit", 5, "--cache", tmp_path / "cache.sqlite", "--json"]
    for model in (family.base, family.founders[0], family.base):
        assert kinship("score", model, *options).code == 0
    assert set(asked) == {str(family.base), str(family.founders[0])}
    assert asked == sorted(asked, key=[str(family.base), str(family.founders[0])].index)  # the third ran nothing


def test_unlike_metrics_are_named_and_have_no_mean(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(f"{letter * 3} and so on\n" for letter in "abcdefghijklmnop"))
    text = f"perplexity=[{{file: {tmp_path / 'text.txt'}, documents: lines}}]"
    table, out = tmp_path / "scores.csv", tmp_path / "scores.json"
    models = [family.base, family.founders[0]]
    outcome = kinship("score", *models, *tasks_of(family, 1), "--set", text, "--out", table, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "mean" not in outcome.out
    assert "log-likelihood per byte" in " ".join(outcome.out.split())
    assert "higher is better" in outcome.out
    assert "unlike" in outcome.err
    content = json.loads(out.read_text())
    assert content["schema"] == "kinship.score/3"
    _, founder = content["models"]
    split = founder["splits"]["search"]
    assert split["value"] is None
    assert founder["versus_first"] == {}
    facts = {task: (entry["metric"], entry["higher_is_better"]) for task, entry in split["tasks"].items()}
    assert facts == {family.task_names[0]: ("acc", True), "text": ("log-likelihood per byte", True)}
    assert founder["versus_first_by_task"]["search"].keys() == facts.keys()
    rows = list(csv.DictReader(table.open()))
    assert {row["metric"] for row in rows} == {"acc", "log-likelihood per byte"}
    assert all(row["difference_to_first"] for row in rows if row["model"] == str(models[1]))
    alone = kinship("score", models[0], *tasks_of(family, 1), "--set", text)
    assert "mean" not in alone.out
    assert "higher is better" in " ".join(alone.out.split())


def test_all_documents_in_one_number(kinship: Kinship, family: "Family") -> None:
    whole, halves = (
        json.loads(kinship("score", family.base, *tasks_of(family, 1), "--json", *more).out)["models"][0]["splits"]
        for more in (["--set", "search_fraction=1"], [])
    )
    assert whole.keys() == {"search"}
    parts = [(half["value"], half["documents"]) for half in halves.values()]
    assert whole["search"]["documents"] == sum(count for _, count in parts)
    assert whole["search"]["value"] == pytest.approx(
        sum(value * count for value, count in parts) / whole["search"]["documents"]
    )
    shown = kinship("score", family.base, *tasks_of(family, 1), "--set", "search_fraction=1").out
    assert "all (n)" in shown
    assert "held" not in shown


def test_a_model_that_makes_no_text_costs_only_itself(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    bert = write(REFUSED["bert"], tmp_path / "bert")
    outcome = kinship("score", family.base, bert, *tasks_of(family, 1), "--limit", 4, "--json")
    assert outcome.code == 1
    base, refused = json.loads(outcome.out)["models"]
    assert base["error"] is None
    assert refused["error"]["code"] == "unsupported_checkpoint"


def test_whatever_a_model_fails_by_costs_only_itself(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    spoilt = {
        "config.json": '{"model_type": "nosuch"}',
        "generation_config.json": "{",
        "tokenizer.json": "[]",
        "model.safetensors": "",
    }
    bad = [shutil.copytree(family.base, tmp_path / f"bad{index}") for index in range(len(spoilt))]
    for folder, (name, content) in zip(bad, spoilt.items(), strict=True):
        (folder / name).write_text(content)
    models = [family.base, *bad, tmp_path / "nowhere", family.founders[0]]
    outcome = kinship("score", *models, *tasks_of(family, 1), "--limit", 4, "--json")
    assert outcome.code == 1
    found = json.loads(outcome.out)["models"]
    errors = [each["error"] for each in found]
    assert errors[0] is None
    assert errors[-1] is None
    assert found[-1]["versus_first"]["search"]
    refused, malformed = "unsupported_checkpoint", "malformed_checkpoint"
    codes = [refused, malformed, refused, malformed, "reference_not_found"]
    assert [error["code"] for error in errors[1:-1]] == codes
    for folder, error in zip(bad, errors[1:], strict=False):
        assert str(folder) in error["message"]
        assert error["hint"]
        assert "\n" not in error["message"]
    shown = kinship("score", *models, *tasks_of(family, 1), "--limit", 4)
    assert shown.code == 1
    assert "bad0" in shown.err
    assert shown.out.count("failed") == 2 * len(codes)  # once a split


def test_settings_at_fault_are_told_once(kinship: Kinship, family: "Family") -> None:
    settings = [*tasks_of(family, 1), "--metric", "nosuch"]
    outcome = kinship("score", family.base, *family.founders, *settings, "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out)["code"] == "invalid_config"
