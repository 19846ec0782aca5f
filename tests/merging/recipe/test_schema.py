from pathlib import Path
from typing import Any

import pytest
import yaml

from kinship.errors import InvalidConfig, ReferenceNotFound
from merging.recipe.schema import Recipe, load_recipe, parse_recipe


def linear(**changes: Any) -> dict[str, Any]:
    models = [{"model": "a", "parameters": {"weight": 0.5}}, {"model": "b", "parameters": {"weight": 1.5}}]
    return {"merge_method": "linear", "models": models} | changes


def slerp(*models: str, **changes: Any) -> dict[str, Any]:
    listed = [{"model": model} for model in models or ("a", "b")]
    return {"merge_method": "slerp", "base_model": "a", "models": listed, "parameters": {"t": 0.5}} | changes


def models(*parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"model": name, "parameters": given} for name, given in zip("abc", parameters, strict=False)]


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        pytest.param(linear(merge_metod="x"), "unknown key 'merge_metod'", "'merge_method'", id="key"),
        pytest.param(
            linear(models=[{"model": "a", "paramters": {}}]),
            "'models.0.paramters'",
            "'parameters'",
            id="key of a model",
        ),
        pytest.param(linear(merge_method="liner"), "no merge method 'liner'", "Did you mean 'linear'", id="method"),
        pytest.param(linear(parameters={"normalise": True}), "no parameter 'normalise'", "'normalize'", id="parameter"),
        pytest.param(
            linear(models=models({"wieght": 1})), "no parameter 'wieght' (given for a)", "'weight'", id="of a model"
        ),
        pytest.param(
            linear(parameters={"weight": [{"filtre": "mlp", "value": 1}]}),
            "parameters.weight",
            "",
            id="key of a filter",
        ),
        pytest.param({"merge_method": "linear"}, "lacks the key 'models'", "models", id="no models key"),
        pytest.param(linear(models=[]), "'models'", "", id="no models"),
        pytest.param(linear(models=[{"parameters": {}}]), "lacks the key 'models.0.model'", "model", id="no name"),
        pytest.param(linear(dtype="int8"), "'dtype' is 'int8'", "", id="dtype"),
        pytest.param(linear(parameters={"weight": "heavy"}), "'heavy'", "", id="text for a number"),
        pytest.param(linear(parameters={"weight": []}), "valid number or a list of at least 1", "", id="empty list"),
        pytest.param(linear(parameters={"weight": {"value": 1}}), "valid number or a valid list", "", id="a mapping"),
        pytest.param(linear(parameters={"weight": [1, "x"]}), "'parameters.weight.1' is 'x'", "", id="in a gradient"),
        pytest.param(linear(parameters={"weight": 1e39}), "more than a float32 can hold", "smaller", id="infinite"),
        pytest.param(linear(models=models({"weight": [1, -1e308]})), "given for a", "smaller", id="infinite, of one"),
        pytest.param(
            linear(parameters={"weight": [{"filter": "mlp", "value": []}]}), "parameters.weight", "", id="in a filter"
        ),
        pytest.param(slerp("a"), "slerp merges 2 models; the recipe lists 1", "", id="one model"),
        pytest.param(slerp("a", "b", "c"), "slerp merges 2 models; the recipe lists 3", "", id="three models"),
        pytest.param(slerp(base_model=None), "slerp needs a base model", "base_model", id="slerp without base"),
        pytest.param(slerp(base_model="c"), "'c' is not among the models", "base_model", id="foreign base"),
        pytest.param(
            linear(merge_method="task_arithmetic"), "task_arithmetic needs a base model", "base_model", id="no base"
        ),
        pytest.param(linear(parameters={"scale": 1.5}), "needs a base model here", "base_model", id="scale, no base"),
        pytest.param(
            linear(models=models({"weight": 1, "scale": 1.5}, {"weight": 1})), "'scale'", "", id="scale for one model"
        ),
        pytest.param(
            slerp(models=[{"model": "a"}, {"model": "b", "parameters": {"t": 0.2}}]), "'t'", "", id="t for one model"
        ),
        pytest.param(linear(slices=[]), "'slices'", "", id="no slices"),
        pytest.param(["linear"], "recipe", "", id="a list"),
        pytest.param(None, "recipe", "", id="nothing"),
    ],
)
def test_impossible_recipe_is_refused_with_a_hint(content: Any, message: str, hint: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        parse_recipe(content)
    assert message in refusal.value.message
    assert hint in refusal.value.hint


@pytest.mark.parametrize(
    "content",
    [
        linear(),
        linear(dtype="bfloat16", out_dtype="float16", tokenizer_source="base", chat_template="auto"),
        linear(models=models({"weight": [0.0, 0.1, 1e-7]}, {"weight": 1 / 3})),
        slerp(parameters={"t": [{"filter": "mlp", "value": [1, 0]}, {"filter": "*", "value": 0.5}, {"value": 0.2}]}),
        linear(merge_method="task_arithmetic", base_model="ünï/base", parameters={"lambda": 0.1 + 0.2}),
    ],
)
def test_recipe_round_trips_through_yaml(content: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(content)
    (tmp_path / "recipe.yml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yml") == recipe
    assert parse_recipe(recipe.to_dict()) == recipe
    assert yaml.safe_load(recipe.to_yaml()) == recipe.to_dict()


def test_numbers_written_as_text_are_numbers() -> None:
    recipe = load_text("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1e-1}}]")
    weight = recipe.models[0].parameters["weight"]
    assert weight == 0.1
    assert isinstance(weight, float)


def test_whole_numbers_are_no_booleans() -> None:
    recipe = load_text("merge_method: linear\nmodels: [{model: a, parameters: {weight: [0, 1]}}]")
    assert [type(value) for value in recipe.models[0].parameters["weight"]] == [float, float]  # type: ignore[union-attr]


def load_text(text: str) -> Recipe:
    return parse_recipe(yaml.safe_load(text))


def test_references_name_each_model_once_the_base_first() -> None:
    recipe = parse_recipe(linear(base_model="b", models=[{"model": name} for name in ("a", "b", "a", "c")]))
    assert recipe.references == ("b", "a", "c")
    assert parse_recipe(linear()).references == ("a", "b")


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound, match=r"absent\.yml"):
        load_recipe(tmp_path / "absent.yml")
    with pytest.raises(ReferenceNotFound):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "models: [",
        "!!python/object/apply:os.getcwd []",
        "a: b: c",
        "\t- x",
        "",
        "just text",
        "not text: \xff\xfe",
        "no such day: 2024-13-45",
        "[" * 600,
    ],
    ids=range(9),
)
def test_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidConfig, match=r"broken\.yml"):
        load_recipe(path)


def test_parts_are_looked_at_as_often_in_a_long_recipe_as_in_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    scales = Recipe.scales

    def counted(recipe: Recipe) -> bool:
        nonlocal asked
        asked += 1
        return scales(recipe)

    monkeypatch.setattr(Recipe, "scales", counted)
    slices = [{"sources": [{"model": "a", "layer_range": [0, 2]}]}] * 3000
    assert len(parse_recipe({"merge_method": "passthrough", "slices": slices}).slices) == 3000
    assert asked == 1
