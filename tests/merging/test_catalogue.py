"""What is told of the merge methods is what they are."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from safetensors.torch import load_file

from merging.catalogue import HEADINGS, SURVEYED, Entry, catalogue, default, limits, own, render
from merging.merge import write_merge
from merging.recipe.schema import load_recipe
from merging.registry import Parameter, Review, Survey, Taxon, get_method, methods

if TYPE_CHECKING:
    from service.demo.family import Family

DOCS = Path(__file__).parents[2] / "docs"


def entry(name: str) -> Entry:
    return next(entry for entry in catalogue() if entry.name == name)


def test_methods_md_is_what_the_specs_say() -> None:
    assert (DOCS / "methods.md").read_text() == render(own()) + "\n", (
        "run: python -m merging.catalogue > docs/methods.md"
    )


def test_every_method_has_a_row_a_section_and_a_summary() -> None:
    assert {found.name for found in catalogue()} == methods().keys()
    text = render(catalogue())
    for found in catalogue():
        assert f"| [{found.name}](#{found.name}) |" in text
        assert f"\n### {found.name}\n" in text
        assert found.summary
        assert found.taxon in HEADINGS
        for parameter in found.parameters:
            assert f"| `{parameter.name}` | {default(parameter)} |" in text


def test_no_class_of_either_survey_is_empty() -> None:
    ours = own()
    assert {found.taxon for found in ours} == set(get_args(Taxon)) == SURVEYED.keys() == HEADINGS.keys()
    assert {found.survey for found in ours} == set(get_args(Survey))
    assert {found.review for found in ours} == set(get_args(Review))
    assert (entry("wanda").survey, entry("wanda").review) == ("subspace", "activation")
    assert (entry("pcb").survey, entry("pcb").review) == ("subspace", "magnitude")
    assert (entry("surgery").survey, entry("smile").review) == ("post-calibration", "moe")


def test_traits_are_those_of_the_spec() -> None:
    assert [entry(name).base for name in ("linear", "nuslerp", "ties", "slerp")] == [
        "no",
        "optional",
        "needed",
        "merged",
    ]
    assert [entry(name).in_span for name in ("slerp", "ties", "nuslerp", "fisher")] == ["yes", "no", "depends", "no"]
    assert [entry(name).counts for name in ("slerp", "ties", "karcher", "passthrough")] == [
        "2",
        "1 or more",
        "2 or more",
        "1",
    ]
    assert {found.name for found in catalogue() if found.random} == {
        "dare_linear",
        "dare_ties",
        "della",
        "della_linear",
        "random_vector",
    }
    assert entry("regmean").data
    assert entry("ties").module == "merging.methods.sparse"


@pytest.mark.parametrize("name", sorted(methods()))
def test_in_span_is_what_the_kernel_does(name: str) -> None:
    """Where it depends, two settings of the method's flags tell it apart."""
    method = get_method(name)
    flags = [{p.name: value for p in method.parameters if isinstance(p.default, bool)} for value in (False, True)]
    seen = {method.in_span(values) for values in flags}
    assert {"yes": {True}, "no": {False}, "depends": {True, False}}[str(entry(name).in_span)] == seen


def test_bars_in_cells_are_escaped() -> None:
    parameter = Parameter("x", "|x| or more", default=1.0)
    found = Entry("m", "s", "basic", "", "", (parameter,), (1, None), "no", "yes", False, "", "m", "basic", "direct")
    assert r"| `x` | 1 | any | no | \|x\| or more |" in render([found])


@pytest.mark.parametrize(
    ("parameter", "values", "standard"),
    [
        (Parameter("x", ""), "any", "required"),
        (Parameter("x", "", default=True), "true or false", "true"),
        (Parameter("x", "", default=0.5, low=0.0, high=1.0), "0 to 1", "0.5"),
        (Parameter("x", "", default=10, kind="integer", low=0), "whole number, 0 or more", "10"),
        (Parameter("x", "", default=1e-8, high=2.5), "2.5 or less", "1e-08"),
    ],
)
def test_values_and_defaults_are_said_as_recipes_write_them(parameter: Parameter, values: str, standard: str) -> None:
    assert limits(parameter) == values
    assert default(parameter) == standard


def test_the_example_with_data_runs(family: "Family", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the small family, whose members take the names of the demo's."""
    place = tmp_path / "demo/family"
    place.mkdir(parents=True)
    for name, folder in zip(("base", "reverse-sort", "max-add"), (family.base, *family.founders), strict=False):
        (place / name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "merging.md").read_text()
    example = next(block.split("```")[0] for block in text.split("```yaml\n")[1:] if "regmean" in block)
    Path("regmean.yml").write_text(example)
    Path("reverse.txt").write_text("".join(f"reverse {word}={word[::-1]}\n" for word in ("abc", "bca", "cab")))
    merged = load_file(write_merge(load_recipe(Path("regmean.yml")), Path("merged")) / "model.safetensors")
    assert merged.keys() == load_file(family.base / "model.safetensors").keys()
    assert all(tensor.isfinite().all() for tensor in merged.values())
