"""A lineage in one file gives what its merges give one after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kinship.errors import InvalidConfig
from merging.merge import planned, write_merge
from merging.recipe.schema import load_recipe, parse_recipe
from merging.registry import methods

MakeModel = Callable[..., Path]
Content = dict[str, Any]
Make = Callable[[list[Any]], Content]

GRADIENT = [{"filter": "self_attn", "value": [0.0, 0.7]}, {"filter": "mlp", "value": [1.0, 0.4]}, {"value": 0.5}]


def weighted(method: str, models: list[Any], weights: list[float], **more: Any) -> Content:
    listed = [{"model": model, "parameters": {"weight": weight}} for model, weight in zip(models, weights, strict=True)]
    return {"merge_method": method, "models": listed} | more


def slerp(one: Any, other: Any, t: Any = 0.3) -> Content:
    models = [{"model": one}, {"model": other}]
    return {"merge_method": "slerp", "base_model": one, "models": models, "parameters": {"t": t}}


def lineage(base: str, founders: list[str], step: Callable[[str, Content], Any], outside: bool) -> Any:
    """Four generations; ``step`` makes of a recipe what stands for its model in the next one."""
    a, b, c = founders
    mean = step("mean", weighted("linear", [a, b], [1, 3]))
    arc = step("arc", slerp(b, c, GRADIENT))
    inner = weighted("task_arithmetic", [mean, arc], [0.9, 0.4], base_model=base)
    if outside:
        inner = weighted("ties", [mean, arc], [0.9, 0.4], base_model=base, parameters={"density": 0.6})
    total = step("sum", inner)
    grand = step("grand", slerp(total, mean, [0.2, 0.9]))
    return step("great", weighted("task_arithmetic", [grand, c], [0.5, 0.8], base_model=total))


@pytest.mark.parametrize("size", [0.02, 0.5], ids=["lines", "arcs"])
@pytest.mark.parametrize("outside", [False, True], ids=["in the span", "with ties inside"])
def test_four_generations_in_one_file(make_model: MakeModel, tmp_path: Path, size: float, outside: bool) -> None:
    if outside and "ties" not in methods():
        pytest.fail("the merge method 'ties' is not registered")
    base = make_model("base")
    founders = [str(make_model(f"m{seed}", seed=seed, base=base, size=size)) for seed in (1, 2, 3)]

    def on_disk(name: str, content: Content) -> str:
        return str(write_merge(parse_recipe(content), tmp_path / f"written-{name}"))

    want = load_file(Path(lineage(str(base), founders, on_disk, outside)) / "model.safetensors")
    recipe = parse_recipe(lineage(str(base), founders, lambda name, content: content, outside))
    (tmp_path / "lineage.yml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "lineage.yml") == recipe
    assert set(recipe.references) == {str(base), *founders}
    got = load_file(write_merge(recipe, tmp_path / "nested") / "model.safetensors")
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        error = (got[name].double() - tensor.double()).abs()
        limit = 16 * 2.0**-23 * float(tensor.abs().max())
        # An element on the threshold of ties may fall on either side, by the rounding of the files in between.
        allowed = 2 if outside else 0
        assert int((error > limit).sum()) <= allowed, (name, float(error.max()))


def test_a_lineage_in_the_span_is_one_blend_of_the_founders(make_model: MakeModel) -> None:
    base = make_model("base")
    founders = [str(make_model(f"m{seed}", seed=seed, base=base)) for seed in (1, 2, 3)]
    with planned(parse_recipe(lineage(str(base), founders, lambda name, content: content, False))) as plan:
        for tensor in plan.tensors:
            assert len(tensor.node.leaves) == 4
            assert tensor.bytes_read == 2 * sum(leaf.entry.nbytes for leaf in tensor.node.leaves)


def test_slices_of_a_merge(make_model: MakeModel, tmp_path: Path) -> None:
    """An inner merge stands wherever a model may: here its second layer becomes the first."""
    base = make_model("base")
    one, two = (make_model(name, seed=seed, base=base) for seed, name in enumerate("ab", 1))
    for path in (one, two):
        (path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    inner = weighted("linear", [str(one), str(two)], [1, 1])
    source = {"model": inner, "layer_range": [1, 2]}
    folder = write_merge(
        parse_recipe({"merge_method": "passthrough", "slices": [{"sources": [source]}] * 3}), tmp_path / "out"
    )
    got, first, second = (load_file(path / "model.safetensors") for path in (folder, one, two))
    for layer in range(3):
        name = "mlp.up_proj.weight"
        old, new = f"model.layers.1.{name}", f"model.layers.{layer}.{name}"
        torch.testing.assert_close(got[new], (first[old] + second[old]) / 2)
    assert len(got) == 2 + 3 * 2


@pytest.mark.parametrize("key", ["dtype", "out_dtype", "tokenizer_source", "chat_template"])
def test_what_only_the_outermost_recipe_may_say(key: str) -> None:
    value = {"tokenizer_source": "base", "chat_template": "auto"}.get(key, "bfloat16")
    inner = weighted("linear", ["a", "b"], [1, 1]) | {key: value}
    with pytest.raises(InvalidConfig, match=key):
        parse_recipe(weighted("linear", [inner, "c"], [1, 1]))


def test_a_misspelt_key_inside_is_named() -> None:
    inner = weighted("linear", ["a", "b"], [1, 1]) | {"paramters": {}}
    with pytest.raises(InvalidConfig, match=r"'models.0.model.paramters'") as refusal:
        parse_recipe(weighted("linear", [inner, "c"], [1, 1]))
    assert "'parameters'" in refusal.value.hint
