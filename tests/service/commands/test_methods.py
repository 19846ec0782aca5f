"""`kinship methods`."""

import json

from merging.catalogue import catalogue
from tests.service.conftest import Kinship


def test_all_methods_are_listed(kinship: Kinship) -> None:
    outcome = kinship("methods")
    assert outcome.code == 0
    first = {line.split()[0] for line in outcome.out.splitlines() if line.strip()}
    assert {entry.name for entry in catalogue()} <= first
    told = " ".join(outcome.out.split())
    assert "(wanda: subspace in arXiv 2408.07666, activation in 2503.08998)" in told
    assert "(routing in arXiv 2408.07666, moe in 2503.08998)" in told
    assert "surveys weighted (arXiv 2408.07666), optimisation (arXiv 2503.08998)" in " ".join(
        kinship("methods", "mats").out.split()
    )


def test_json_is_the_specs(kinship: Kinship) -> None:
    content = json.loads(kinship("methods", "--json").out)
    assert content["schema"] == "kinship.methods/3"
    assert [method["name"] for method in content["methods"]] == [entry.name for entry in catalogue()]
    one = json.loads(kinship("methods", "ties", "--json").out)
    [ties] = one["methods"]
    assert ties in content["methods"]
    assert (ties["base"], ties["in_span"], ties["random"], ties["data"]) == ("needed", "no", False, None)
    density = next(parameter for parameter in ties["parameters"] if parameter["name"] == "density")
    assert {key: value for key, value in density.items() if key != "help"} == {
        "name": "density",
        "kind": "number",
        "default": 1.0,
        "required": False,
        "per_model": True,
        "low": 0.0,
        "high": 1.0,
    }
    weight = next(parameter for parameter in ties["parameters"] if parameter["name"] == "weight")
    assert (weight["required"], weight["default"], weight["low"], weight["high"]) == (True, None, None, None)


def test_one_method_is_told_in_full(kinship: Kinship) -> None:
    for entry in catalogue():
        outcome = kinship("methods", entry.name)
        assert outcome.code == 0
        lines = {" ".join(line.split()) for line in outcome.out.splitlines()}
        if entry.formula:
            assert f"formula {' '.join(entry.formula.split())}" in lines
        if entry.data:
            assert f"needs {entry.data}" in lines
        for parameter in entry.parameters:
            assert parameter.name in outcome.out
    assert "arXiv 2306.01708" in kinship("methods", "ties").out


def test_unknown_method_is_refused_with_the_nearest(kinship: Kinship) -> None:
    outcome = kinship("methods", "slrep")
    assert outcome.code == 1
    assert "'slrep'" in outcome.err
    assert "'slerp'" in outcome.err
