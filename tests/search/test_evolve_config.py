"""mergekit-evolve's configs are run files: what maps is there, what does not is said."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinship.errors import InvalidConfig, KinshipWarning
from search.config import RunConfig, load_config

CONFIG: dict[str, Any] = {
    "genome": {
        "models": ["one", "two", "base"],
        "merge_method": "dare_ties",
        "base_model": "base",
        "tokenizer_source": "base",
        "layer_granularity": 8,
        "normalize": False,
    },
    "tasks": [{"name": "arc_easy", "weight": 2.0, "metric": "acc_norm,none"}, {"name": "piqa"}],
    "limit": 100,
    "num_fewshot": 5,
}


def read(folder: Path, content: object) -> tuple[RunConfig, str]:
    path = folder / "evolve.yml"
    path.write_text(yaml.safe_dump(content))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_config(path)
    assert all(issubclass(warning.category, KinshipWarning) for warning in caught)
    return found, " ".join(str(warning.message) for warning in caught)


def test_what_maps_is_there(tmp_path: Path) -> None:
    run, _ = read(tmp_path, CONFIG)
    assert (run.base, list(run.founders.values()), run.merge.method) == ("base", ["one", "two"], "dare_ties")
    assert (run.strategy.name, run.strategy.sampler, run.strategy.coefficients) == ("optuna", "cmaes", "layers")
    one, other = run.evaluate.tasks
    assert (one.task, one.metric, one.filter, other.task) == ("arc_easy", "acc_norm", "none", "piqa")
    assert (run.evaluate.limit, run.evaluate.num_fewshot, run.tokenizer_source) == (100, 5, "base")
    assert run.aggregate.weights == {"arc_easy": 2.0, "piqa": 1.0}


def test_what_its_command_line_says_are_keys(tmp_path: Path) -> None:
    run, _ = read(tmp_path, CONFIG)
    assert (run.stop.evaluations, run.evaluate.task_path, run.seed) == (100, None, 0)
    run, _ = read(tmp_path, CONFIG | {"task_path": "tasks", "stop": {"evaluations": 7}, "seed": 3})
    assert (run.stop.evaluations, run.evaluate.task_path, run.seed) == (7, "tasks", 3)


def test_what_does_not_is_said(tmp_path: Path) -> None:
    genome = CONFIG["genome"] | {"smooth": True, "allow_negative_weights": True, "filters": ["mlp", "self_attn"]}
    run, said = read(tmp_path, CONFIG | {"genome": genome, "shuffle": True})
    assert run.strategy.coefficients == "modules"
    for text in ("paths count from its folder", "smooth", "allow_negative_weights", "filters", "shuffle", "held out"):
        assert text in said
    assert "random_init" not in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"genome": {"models": ["one"], "merge_method": "ties"}}, "lacks 'base_model'"),
        ({"genome": CONFIG["genome"] | {"granularity": 1}}, "'granularity' in genome"),
        ({"sed": 1}, "'sed' in the top"),
        ({"tasks": [{"name": "piqa", "weight": -1.0}]}, "weight of piqa is -1.0"),
        ({"tasks": [{"task": "piqa"}]}, "has no name"),
        ({"tasks": [{"name": "piqa", "kind": "x"}]}, "unknown key 'kind'"),
        ({"tasks": "piqa"}, "tasks a list"),
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": ["piqa", {"name": "piqa"}]}, "piqa is listed twice"),
        ({"tasks": [{"name": "piqa", "weight": float("inf")}]}, "weight of piqa is inf"),
        ({"genome": CONFIG["genome"] | {"models": "org/one"}}, "models is 'org/one'; a list"),
        ({"genome": CONFIG["genome"] | {"base_model": None}}, "lacks 'base_model'"),
    ],
)
def test_what_it_cannot_say_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        read(tmp_path, CONFIG | change)
