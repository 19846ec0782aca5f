from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from kinship.errors import InvalidConfig
from kinship.validation import Strict, invalid, nearest, read_yaml


class Scale(Strict):
    factor: float = 1.0
    unit: str = "m"


class Pet(Strict):
    name: str
    weight: float | list[float] = 1.0
    scale: Scale | None = None


class Farm(Strict):
    pets: tuple[Pet, ...] = ()
    by_name: dict[str, Pet] = Field(default_factory=dict)
    scale: Scale = Scale()
    hours: int = Field(1, ge=0)


def refuse(content: object) -> InvalidConfig:
    with pytest.raises(ValidationError) as refusal:
        Farm.model_validate(content)
    return invalid(refusal.value, "farm.yml", Farm)


@pytest.mark.parametrize(
    ("content", "place", "hint"),
    [
        ({"petz": []}, "'petz'", "Did you mean 'pets'?"),
        ({"scale": {"factr": 1}}, "'scale.factr'", "Did you mean 'factor'?"),
        ({"pets": [{"name": "a"}, {"name": "b", "wieght": 1}]}, "'pets.1.wieght'", "Did you mean 'weight'?"),
        ({"by_name": {"a": {"name": "a", "naem": 1}}}, "'by_name.a.naem'", "Did you mean 'name'?"),
        ({"pets": [{"name": "a", "scale": {"unti": "m"}}]}, "'pets.0.scale.unti'", "Did you mean 'unit'?"),
        ({"scale": {"qqq": 1}}, "'scale.qqq'", "Known here: factor, unit."),
    ],
)
def test_unknown_key_is_named_with_its_place_and_the_nearest(content: object, place: str, hint: str) -> None:
    error = refuse(content)
    assert error.message == f"farm.yml has the unknown key {place}."
    assert error.hint == hint


def test_missing_key_is_named_with_its_place() -> None:
    error = refuse({"pets": [{"weight": 2}]})
    assert error.message == "farm.yml lacks the key 'pets.0.name'."
    assert "name" in error.hint


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"hours": "many"}, ["'hours'", "'many'"]),
        ({"hours": -1}, ["'hours'", "-1"]),
        ({"hours": True}, ["'hours'", "True", "expected a number"]),
        ({"pets": [{"name": "a", "weight": False}]}, ["'pets.0.weight'", "False", "expected a number"]),
        ({"pets": [{"name": "a", "weight": None}]}, ["'pets.0.weight'", "a valid number or a valid list"]),
        ({"pets": [{"name": "a", "weight": [1, "b"]}]}, ["'pets.0.weight.1'", "'b'"]),
        ({"pets": [{"name": "a", "weight": "heavy"}]}, ["'pets.0.weight'", "'heavy'"]),
        ([1], ["[1]", "mapping"]),
    ],
)
def test_wrong_value_is_named_with_its_place(content: object, parts: list[str]) -> None:
    message = refuse(content).message
    for part in ["farm.yml", *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("key", "known", "hint"),
    [
        ("lamda", ["lambda", "weight"], "Did you mean 'lambda'?"),
        ("zzz", ["lambda", "weight"], "Known here: lambda, weight."),
        ("t", ["scale", "t"], "Did you mean 't'?"),
    ],
)
def test_nearest(key: str, known: list[str], hint: str) -> None:
    assert nearest(key, known) == hint
    assert nearest(key, iter(known)) == hint


def test_schemas_are_frozen() -> None:
    farm: Any = Farm()
    with pytest.raises(ValidationError):
        farm.hours = 3


def test_a_misspelt_required_key_is_told_as_misspelt() -> None:
    from pydantic import ValidationError

    from kinship.validation import Strict, invalid

    class Settings(Strict):
        tasks: list[str]

    try:
        Settings.model_validate({"task": []})
    except ValidationError as error:
        told = invalid(error, "run.yml", Settings)
    assert "unknown key 'task'" in told.message
    assert "'tasks'" in told.hint


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    file.write_text("stop: {generations: 2}\nbase: a\nstop: {generations: 9}\n")
    with pytest.raises(InvalidConfig, match=r"line 3, column 1: 'stop' is given twice"):
        read_yaml(file, "run file")
    file.write_text("one: &shared {a: 1, b: 2}\ntwo: {<<: *shared, b: 3}\n")
    assert read_yaml(file, "run file") == {"one": {"a": 1, "b": 2}, "two": {"a": 1, "b": 3}}


def test_whoever_makes_one_directly_is_told_by_an_error_of_ours() -> None:
    given: Any = {"houurs": 3}
    with pytest.raises(InvalidConfig, match="Farm has the unknown key 'houurs'") as refused:
        Farm(**given)
    assert refused.value.hint == "Did you mean 'hours'?"
    with pytest.raises(InvalidConfig, match="Farm: 'hours' is -1"):
        Farm(hours=-1)
    inside: Any = [{"name": "a", "wieght": 1}]
    with pytest.raises(InvalidConfig, match=r"Farm has the unknown key 'pets\.0\.wieght'"):
        Farm(pets=inside)
