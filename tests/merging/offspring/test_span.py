"""The span predicts what `kinship_matrix` measures on weights that were really written."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, KinshipWarning, MismatchedModels
from kinship.measures.gram import GramTable
from merging.merge import write_merge
from merging.offspring.span import Genome, Span, open_span
from merging.offspring.weights import materialise
from merging.recipe.schema import Recipe, load_recipe, parse_recipe

MakeModel = Callable[..., Path]
Tensors = dict[str, torch.Tensor]

GRADIENT = [{"filter": "self_attn", "value": [0.0, 0.7]}, {"filter": "mlp", "value": [1.0, 0.4]}, {"value": 0.5}]


class Family:
    """Founders on disk, their span, and the children bred from them, by id."""

    def __init__(self, founders: list[Path], stack: ExitStack) -> None:
        self.models: list[Checkpoint] = [stack.enter_context(open_checkpoint(path)) for path in founders]
        self.span: Span = open_span(self.models, with_products=True)
        self.base, *self.founders = self.span.ids
        self.genomes: dict[str, Genome] = {id: self.span.founder(id) for id in self.span.ids}

    def breed(self, id: str, content: dict[str, Any]) -> Genome:
        self.genomes[id] = self.span.merge(parse_recipe(content), self.genomes)
        return self.genomes[id]

    def weights(self, id: str) -> Tensors:
        return dict(materialise(self.genomes[id], self.span.names, self.models))


def weighted(method: str, models: dict[str, float], base: str | None = None, **parameters: Any) -> dict[str, Any]:
    listed = [{"model": model, "parameters": {"weight": weight}} for model, weight in models.items()]
    return {"merge_method": method, "models": listed, "base_model": base, "parameters": parameters}


def slerped(one: str, other: str, t: Any) -> dict[str, Any]:
    models = [{"model": one}, {"model": other}]
    return {"merge_method": "slerp", "base_model": one, "models": models, "parameters": {"t": t}}


@pytest.fixture(params=[0.02, 0.4], ids=["close", "far"])
def family(make_model: MakeModel, request: pytest.FixtureRequest) -> Iterator[Family]:
    """Three founders: close ones, whose SLERP is a line, or far ones, whose SLERP is an arc."""
    base = make_model("base")
    founders = [make_model(f"m{seed}", seed=seed, base=base, size=request.param) for seed in (1, 2, 3)]
    with ExitStack() as stack:
        yield Family([base, *founders], stack)


def generations(family: Family) -> list[str]:
    """Breed three generations with every method; returns all ids but the base's."""
    one, two, three = family.founders
    family.breed("mean", weighted("linear", {one: 1, two: 3}))
    family.breed("arc", slerped(two, three, GRADIENT))
    family.breed("sum", weighted("task_arithmetic", {one: 0.9, three: -0.4}, family.base, **{"lambda": 1.2}))
    family.breed("stretched", weighted("linear", {"mean": 1, "arc": 1}, family.base, scale=1.7))
    family.breed("grand-arc", slerped("sum", "mean", [0.2, 0.9]))
    family.breed("great", slerped("grand-arc", "stretched", GRADIENT))
    family.breed("rebased", weighted("task_arithmetic", {"great": 0.5, "arc": 0.8}, "mean"))
    return [*family.founders, "mean", "arc", "sum", "stretched", "grand-arc", "great", "rebased"]


def test_kinship_is_what_is_measured_on_written_weights(family: Family, tmp_path: Path) -> None:
    ids = generations(family)
    files = []
    for index, id in enumerate(ids):
        files.append(tmp_path / f"written-{index}.safetensors")
        save_file(family.weights(id), files[-1])
    for metric in ("pcc", "cosine", "euclidean"):
        predicted = family.span.kinship({id: family.genomes[id] for id in ids}, metric)
        measured = kinship_matrix(files, family.base, metric)
        assert predicted.ids == tuple(ids)
        assert (predicted.base, predicted.metric) == (family.base, metric)
        np.testing.assert_allclose(predicted.values, measured.values, rtol=1e-5, atol=1e-5)
        assert predicted.values[np.triu_indices(len(ids), 1)].std() > 0.1  # the ids do differ


def test_children_are_what_their_recipes_say(family: Family) -> None:
    """Against merges of the parents' written-out tensors in float64, one generation at a time."""
    generations(family)
    w = {id: {name: t.double() for name, t in family.weights(id).items()} for id in family.genomes}
    one, two, three = family.founders
    for name in family.span.names:
        base = w[family.base][name]
        mean = (w[one][name] + 3 * w[two][name]) / 4
        total = base + 1.2 * (0.9 * (w[one][name] - base) - 0.4 * (w[three][name] - base))
        stretched = base + 1.7 * ((w["mean"][name] + w["arc"][name]) / 2 - base)
        rebased = w["mean"][name]
        rebased = rebased + 0.5 * (w["great"][name] - rebased) + 0.8 * (w["arc"][name] - rebased)
        layer = 1.0 if "layers.1" in name else 0.0
        t = {"self_attn": 0.7 * layer, "mlp": 1.0 - 0.6 * layer}.get(name.split(".")[-3], 0.5)
        wanted = {
            "mean": mean,
            "sum": total,
            "stretched": stretched,
            "rebased": rebased,
            "arc": arc(w[two][name], w[three][name], t),
            "grand-arc": arc(w["sum"][name], w["mean"][name], 0.2 + 0.7 * layer),
            "great": arc(w["grand-arc"][name], w["stretched"][name], t),
        }
        for id, want in wanted.items():
            torch.testing.assert_close(w[id][name], want, rtol=0, atol=2e-6 * float(want.abs().max()))


def arc(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    cosine = (a * b).sum() / (a.norm() * b.norm())
    if cosine.abs() > 0.9995:
        return (1 - t) * a + t * b
    angle = torch.acos(cosine)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def test_products_are_the_dot_products_of_the_weights(family: Family) -> None:
    ids = [family.base, *generations(family)]
    weights = [family.weights(id) for id in ids]
    got = family.span.products([family.genomes[id] for id in ids])
    for index, name in enumerate(family.span.names):
        flat = torch.stack([tensors[name].double().flatten() for tensors in weights])
        norms = flat.norm(dim=1)
        error = (torch.from_numpy(got[index]) - flat @ flat.T).abs() / torch.outer(norms, norms)
        assert float(error.max()) < 1e-6


def test_kinship_of_the_base_itself_has_no_direction(family: Family) -> None:
    matrix = family.span.kinship({"same": family.genomes[family.base], "one": family.genomes[family.founders[0]]})
    assert matrix.without_direction() == ("same",)


def test_genome_round_trips_through_bytes(family: Family) -> None:
    generations(family)
    genome = family.genomes["great"]
    again = Genome.from_bytes(genome.to_bytes(), len(family.span.names))
    np.testing.assert_array_equal(again.coefficients, genome.coefficients)
    assert again.to_bytes() == genome.to_bytes()
    assert np.frombuffer(genome.to_bytes(), "<f8")[1] == genome.coefficients[0, 1]


# Recipes of genomes


@pytest.mark.parametrize("id", ["mean", "sum", "great", "arc"])
def test_recipe_of_a_genome_makes_the_same_weights(family: Family, tmp_path: Path, id: str) -> None:
    generations(family)
    recipe = family.span.recipe_of(family.genomes[id])
    (tmp_path / "recipe.yml").write_text(recipe.to_yaml())
    written = load_file(write_merge(load_recipe(tmp_path / "recipe.yml"), tmp_path / "out") / "model.safetensors")
    want = family.weights(id)
    assert written.keys() == want.keys()
    for name, tensor in want.items():
        assert torch.equal(written[name], tensor), name


def test_recipe_of_a_uniform_genome_is_plain_numbers(family: Family) -> None:
    generations(family)
    recipe = family.span.recipe_of(family.genomes["mean"])
    assert [(entry.model, entry.parameters) for entry in recipe.models] == [
        (family.founders[0], {"weight": 0.25}),
        (family.founders[1], {"weight": 0.75}),
    ]


def test_recipe_of_tells_names_apart_that_contain_each_other(make_model: MakeModel, tmp_path: Path) -> None:
    shapes = dict.fromkeys(("w", "a.w", "w.a", "a.w.a", "layers.1.w", "layers.11.w"), (3, 4))
    base = make_model("base", shapes=shapes)
    other = make_model("other", seed=1, base=base, shapes=shapes)
    with ExitStack() as stack:
        family = Family([base, other], stack)
        rng = np.random.default_rng(0)
        family.genomes["odd"] = Genome(rng.normal(size=(len(shapes), 2)))
        written = load_file(
            write_merge(family.span.recipe_of(family.genomes["odd"]), tmp_path / "out") / "model.safetensors"
        )
        assert all(torch.equal(written[name], tensor) for name, tensor in family.weights("odd").items())


def test_founders_are_recipes_of_themselves(family: Family) -> None:
    one = family.founders[0]
    recipe = family.span.recipe_of(family.genomes[one])
    assert recipe.references == (one,)


# What merge refuses


def test_missing_required_parameter_names_model_and_tensor(family: Family) -> None:
    one, two, _ = family.founders
    content = weighted("linear", {one: 1.0, two: 1.0})
    content["models"][1]["parameters"] = {"weight": [{"filter": "mlp", "value": 0.5}]}
    with pytest.raises(InvalidConfig) as refusal:
        family.breed("child", content)
    assert two in refusal.value.message
    assert "'model.embed_tokens.weight'" in refusal.value.message
    assert "'weight'" in refusal.value.message


def test_a_filter_that_no_tensor_has_is_told(family: Family) -> None:
    one, two, _ = family.founders
    content = weighted("linear", {one: 1.0, two: 1.0})
    content["models"][1]["parameters"] = {"weight": [{"filter": "mlpp", "value": 0.5}, {"value": 1}]}
    with pytest.warns(KinshipWarning, match="'mlpp' of 'weight' matches no tensor"):
        family.breed("child", content)


def test_parameters_of_the_recipe_fill_in_for_the_models(family: Family) -> None:
    one, two, _ = family.founders
    content = weighted("linear", {one: 1.0, two: 1.0}, weight=3.0)
    content["models"][1]["parameters"] = {}
    expected = family.breed("wanted", weighted("linear", {one: 1.0, two: 3.0}))
    np.testing.assert_array_equal(family.breed("got", content).coefficients, expected.coefficients)


def test_t_counts_from_the_base_model_whatever_the_order(family: Family) -> None:
    one, two, _ = family.founders
    content = slerped(one, two, 0.3)
    forward = family.breed("forward", content)
    backward = family.breed("backward", content | {"models": content["models"][::-1]})
    np.testing.assert_array_equal(forward.coefficients, backward.coefficients)
    assert forward.coefficients[0, 1] > forward.coefficients[0, 2]


@pytest.mark.parametrize(("t", "end"), [(0.0, 0), (1.0, 1)])
def test_slerp_ends_are_the_parents_exactly(family: Family, t: float, end: int) -> None:
    pair = family.founders[:2]
    child = family.breed("child", slerped(pair[0], pair[1], t))
    np.testing.assert_allclose(child.coefficients, family.genomes[pair[end]].coefficients, atol=1e-12)


def test_models_with_other_tensors_cannot_share_a_span(make_model: MakeModel) -> None:
    base = make_model("base")
    less = make_model("less", shapes={"model.norm.weight": (8,)})
    with ExitStack() as stack, pytest.raises(MismatchedModels, match="less"):
        Family([base, less], stack)


def test_span_and_table_must_be_over_the_same_models(family: Family) -> None:
    table = family.span.table
    assert table is not None
    other = GramTable(table.rows[::-1], table.names, table.counts, table.sums, table.grams)
    with pytest.raises(ValueError, match="not over this span"):
        Span(family.span.ids, family.span.names, other)


def test_integer_buffers_have_no_part_in_kinship(make_model: MakeModel, tmp_path: Path) -> None:
    """As in `kinship_matrix`; a child whose coefficients do not sum to one would otherwise be all buffer."""
    base = make_model("base")
    paths = [base, *(make_model(f"m{seed}", seed=seed, base=base) for seed in (1, 2))]
    for path in paths:
        save_file(load_file(path / "model.safetensors") | {"ids": torch.arange(5000)}, path / "model.safetensors")
    with ExitStack() as stack:
        family = Family(paths, stack)
        one, two = family.founders
        family.breed("arc", slerped(one, two, 0.4))
        family.breed("short", weighted("linear", {one: 0.4, two: 0.4}, normalize=False))
        files: list[Path] = []
        for id in (one, "arc", "short"):
            files.append(tmp_path / f"{len(files)}.safetensors")
            save_file(family.weights(id), files[-1])
        for metric in ("pcc", "cosine", "euclidean"):
            predicted = family.span.kinship({id: family.genomes[id] for id in (one, "arc", "short")}, metric)
            np.testing.assert_allclose(
                predicted.values, kinship_matrix(files, base, metric).values, rtol=1e-5, atol=1e-5
            )


def test_parsed_recipe_is_what_merge_takes(family: Family) -> None:
    recipe = Recipe.model_validate({"merge_method": "slerp", "models": [{"model": family.base}]})
    with pytest.raises(InvalidConfig):
        family.span.merge(recipe, family.genomes)
