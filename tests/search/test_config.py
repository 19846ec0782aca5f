import math
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinship.errors import InvalidConfig, ReferenceNotFound
from search.config import RunConfig, load_config, parse_config
from search.strategies.span_points import SEARCHES_WEIGHTS

GOOD = {"base": "models/base", "founders": ["models/one", "models/two"], "evaluate": {"tasks": ["boolq"]}}


def test_a_short_run_file_is_enough() -> None:
    config = parse_config(GOOD)
    assert config.founders == {"one": "models/one", "two": "models/two"}
    assert config.strategy.variant == "kinship"
    assert config.strategy.k == 3
    assert config.merge.method == "linear"


def test_founders_may_be_named() -> None:
    founders = {"math": "models/one", "chat": "elsewhere/one"}
    assert parse_config(GOOD | {"founders": founders}).founders == founders


def test_a_folder_with_a_slash_at_its_end_is_named_after_its_last_part() -> None:
    assert list(parse_config(GOOD | {"founders": ["models/one/", "two"]}).founders) == ["one", "two"]


def test_what_is_dumped_is_read_again() -> None:
    changes = {
        "merge": {"method": "slerp", "parameters": {"t": [{"filter": "mlp", "value": [0.0, 1.0]}, {"value": 0.5}]}},
        "stop": {"kinship_above": 0.9},
    }
    config = parse_config(GOOD | changes)
    assert RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize(
    ("changes", "place", "right"),
    [
        ({"foundres": []}, "'foundres'", "founders"),
        ({"strategy": {"varient": "kinship"}}, "'strategy.varient'", "variant"),
        ({"stop": {"kinship_over": 0.9}}, "'stop.kinship_over'", "kinship_above"),
        ({"evaluate": {"tasks": ["boolq"], "batchsize": 3}}, "'evaluate.batchsize'", "batch_size"),
        ({"merge": {"metod": "linear"}}, "'merge.metod'", "method"),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_right_one(
    changes: dict[str, Any], place: str, right: str
) -> None:
    with pytest.raises(InvalidConfig, match="unknown key") as raised:
        parse_config(GOOD | changes, "my-run.yml")
    assert raised.value.message.startswith("my-run.yml ")
    assert place in raised.value.message
    assert raised.value.hint == f"Did you mean {right!r}?"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merge": {"parameters": {"scael": 1.2}}}, "linear has no parameter 'scael'. Did you mean 'scale'?"),
        ({"merge": {"method": "slerp", "parameters": {"weight": 1.0}}}, "slerp has no parameter 'weight'"),
        ({"merge": {"method": "slerp"}}, "slerp needs the parameter 't'"),
        ({"merge": {"method": "passthrough"}}, "passthrough does not merge two models"),
        ({"founders": ["a/one", "b/one"]}, "two founders are called 'one'"),
        ({"founders": ["only"]}, "at least 2"),
        ({"founders": {"1-2": "a", "b": "b"}}, "cannot be called '1-2'"),
        ({"founders": ["models/10-3", "b"]}, "cannot be called '10-3'"),
        ({"founders": {"base": "a", "b": "b"}}, "cannot be called 'base'"),
        ({"founders": [".", "b"]}, "cannot be called ''"),
        ({"founders": "a"}, "'founders'"),
        ({"strategy": {"k": 1}}, "'strategy.k'"),
        ({"strategy": {"metric": "manhattan"}}, "'pcc', 'cosine' or 'euclidean'"),
        ({"stop": {"generations": 0}}, "'stop.generations'"),
        ({"stop": {"evaluations": 0}}, "'stop.evaluations'"),
        ({"stop": {"hours": 0}}, "'stop.hours'"),
        ({"race": {"enabled": True}, "aggregate": {"kind": "worst"}}, "not the worst of them"),
        ({"workers": {"count": 3}}, "count means nothing to workers of the kind inline"),
        ({"evaluate": {"tasks": []}}, "nothing to evaluate"),
        ({"evaluate": {"tasks": ["a"], "search_fraction": 1.5}}, "'evaluate.search_fraction'"),
        ({"evaluate": {}}, "nothing to evaluate"),
        ({"seed": -1}, "'seed'"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        parse_config(GOOD | changes)
    assert said in raised.value.message


@pytest.mark.parametrize("name", ["1-2b", "v1-2", "12", "1-", "Base", "a-1"])
def test_names_that_only_look_alike_are_allowed(name: str) -> None:
    assert name in parse_config(GOOD | {"founders": [name, "other"]}).founders


@pytest.mark.parametrize("content", [None, [1], "text", 3])
def test_a_file_that_is_no_mapping_is_refused(content: Any) -> None:
    with pytest.raises(InvalidConfig):
        parse_config(content)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound, match="There is no run file"):
        load_config(tmp_path / "run.yml")
    (tmp_path / "run.yml").write_text("base: [1")
    with pytest.raises(InvalidConfig, match="not valid YAML"):
        load_config(tmp_path / "run.yml")
    (tmp_path / "run.yml").write_text(yaml.safe_dump(GOOD))
    assert load_config(tmp_path / "run.yml") == parse_config(GOOD)


def numbers(schema: dict[str, Any], known: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a JSON Schema takes numbers."""
    schema = known[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if schema.get("type") in ("number", "integer") or "prefixItems" in schema:
        yield place
    for part in schema.get("anyOf", []):
        yield from numbers(part, known, place)
    for key, part in schema.get("properties", {}).items():
        yield from numbers(part, known, (*place, key))


def test_no_number_may_be_infinite_or_absurd() -> None:
    schema = RunConfig.model_json_schema()
    places = sorted(set(numbers(schema, schema["$defs"])))
    assert len(places) >= 29
    anything = [("evaluate", "gen_kwargs", "temperature"), ("merge", "parameters", "weight")]
    for place in [*places, *anything]:
        for value in (math.nan, math.inf, -math.inf, 10**30):
            content: dict[str, Any] = deepcopy(GOOD)
            *parts, last = place
            holder = content
            for part in parts:
                holder = holder.setdefault(part, {})
            holder[last] = value
            with pytest.raises(InvalidConfig) as raised:
                parse_config(content, "my-run.yml")
            assert f"my-run.yml: {'.'.join(place)!r} is " in raised.value.message


def test_values_that_name_what_they_are_in_do_not_hang() -> None:
    around: list[Any] = [1.0]
    around.append(around)
    with pytest.raises(InvalidConfig):
        parse_config(GOOD | {"seed": around})


def test_a_word_where_a_list_belongs_is_told_how_to_write_one() -> None:
    with pytest.raises(InvalidConfig) as raised:
        parse_config(GOOD | {"controls": "random_vector"})
    assert raised.value.hint == "Write it as a list: [random_vector]."


def test_a_misspelt_strategy_is_told_all_there_are() -> None:
    with pytest.raises(InvalidConfig, match=r"'topk', .*'niches', .* or 'auto'") as raised:
        parse_config(GOOD | {"strategy": "nichs"})
    assert raised.value.hint == "Did you mean 'niches'?"


@pytest.mark.parametrize("name", SEARCHES_WEIGHTS)
def test_a_search_for_weights_by_another_method_is_refused_before_anything_is_scored(name: str) -> None:
    ties = {"merge": {"method": "ties", "parameters": {"density": 0.5}}}
    with pytest.raises(InvalidConfig, match=f"{name!r} searches weights and scale .* merge.method is 'ties'"):
        parse_config(GOOD | ties | {"strategy": name})
    assert parse_config(GOOD | ties).strategy.name == "auto"
