"""The table for the documentation cannot drift from the functions it is about."""

import inspect
from importlib import import_module
from typing import Any

import pytest

from merging.data_driven.specs import DATA_DRIVEN, DataDrivenMethod
from merging.registry import methods


def function(method: DataDrivenMethod) -> Any:
    module, name = method.entry.split(".")
    return getattr(import_module(f"merging.data_driven.{module}"), name)


@pytest.mark.parametrize("method", DATA_DRIVEN, ids=lambda method: method.name)
def test_defaults_are_those_of_the_function(method: DataDrivenMethod) -> None:
    given = inspect.signature(function(method)).parameters
    assert ("base" in given) == (method.base == "needed")
    for parameter in method.parameters:
        default = given[parameter.name].default
        assert default == (None if parameter.per_model else parameter.default), parameter.name
    elsewhere = {"models", "base", "model", "batches", "statistics", "by", "device"}
    assert given.keys() - elsewhere == {parameter.name for parameter in method.parameters}


def test_every_method_is_described_and_has_a_name_of_its_own() -> None:
    names = [method.name for method in DATA_DRIVEN]
    assert len(set(names)) == len(names)
    assert not set(names) & methods().keys()
    for method in DATA_DRIVEN:
        assert method.formula
        assert method.data
        assert "arXiv" in method.reference
