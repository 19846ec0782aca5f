"""A plan says what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest

from kinship.errors import InvalidConfig
from search.comparison.arms import Arm, baselines, by_cell, every_arm, grid, prefixes, sweeps, whole
from search.comparison.plan import Cell, ComparisonPlan, MethodSettings, NumberSettings, parse_plan

CONTENT: dict[str, Any] = {
    "base": "base",
    "cells": {"a": {"model": "ma"}, "b": {"model": "mb"}, "c": {"model": "mc"}, "u": {"task": "unseen"}},
    "evaluate": {"tasks": ["a", "b", "c", "unseen"]},
    "methods": {"linear": {"tune": {"scale": [0.5, 1.0, 2.0]}}, "dare": {"method": "dare_linear"}},
    "seeds": [3, 4],
}


def plan(**changes: Any) -> ComparisonPlan:
    return parse_plan(CONTENT | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cells": {"a": {"model": "ma"}, "u": {}}}, "fewer than two cells have a model"),
        ({"cells": CONTENT["cells"] | {"v": {"nearest": "z"}}}, "no cell with a model"),
        ({"cells": CONTENT["cells"] | {"v": {"same_data": "z"}}}, "no model that it could be merged with"),
        ({"cells": CONTENT["cells"] | {"v": {"task": "a"}}}, "two cells have one task"),
        (
            {"cells": {**CONTENT["cells"], **{name: {"skill": "s", "domain": "d"} for name in "vw"}}},
            "one skill and one",
        ),
        ({"reference": "ties"}, "none of the methods compared"),
        ({"frame": "elsewhere"}, "none of the models: base, ma, mb, mc"),
        ({"number": {"methods": ["ties"]}}, "none of the methods compared"),
        ({"metods": []}, "unknown key 'metods'"),
        ({"methods": [{"linear": {}}]}, "methods"),
        ({"methods": ["linear", "ties", "linear"]}, "one is named twice"),
        ({"seeds": [0, 1, 0]}, "each once"),
        ({"seeds": [-1]}, "from 0 on"),
        ({"methods": {"ties": {"tune": {"lambda": []}}}}, "at least 1"),
        ({"methods": {"ties": {"sweep": {"lambda": []}}}}, "at least 1"),
        ({"data": {"statistics": "kept"}}, "in its own folder"),
        ({"methods": {"base": {"method": "linear"}}}, "'base' is what another row is called"),
        ({"methods": {"ties": {}, "ties (tuned)": {"method": "ties"}}}, "what another row is called"),
        ({"methods": {"ties": {"tune": {f"p{at}": [0.1, 0.2, 0.3, 0.4] for at in range(7)}}}}, "leave out some"),
        ({"seeds": list(range(100_000))}, "leave out some"),
        ({"number": {"methods": ["linear"], "orders": 10**9}}, "leave out some"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        plan(**changes)


def test_a_method_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidConfig, match="tyes"):
        plan(methods=["tyes"]).require_methods()


def test_a_method_that_takes_fewer_models_says_so_with_its_name() -> None:
    checked = plan(methods={"two": {"method": "nuslerp"}})
    with pytest.raises(InvalidConfig, match="two cannot be compared"):
        whole(checked, "two", 0).recipe(checked)
    with pytest.raises(InvalidConfig, match="one of which is its base, and a comparison merges all 3 specialists"):
        plan(methods={"two": {"method": "slerp", "parameters": {"t": 0.5}}}).require_methods()


def test_a_cell_without_the_documents_that_a_method_measures_on_is_named() -> None:
    with pytest.raises(InvalidConfig, match="the cell a has none") as caught:
        plan(methods=["regmean"]).require_methods()
    assert "cells.a.data" in str(caught.value.hint)
    for data in ({"file": "all.txt"}, {"texts": ["a"]}):
        plan(methods=["regmean"], data=data).require_methods()


def test_documents_for_all_count_from_the_plans_folder_and_by_their_content(tmp_path: Path) -> None:
    checked = plan(methods=["regmean"], data={"file": "all.txt"}).rooted(tmp_path)
    assert checked.data.file == str(tmp_path / "all.txt")
    digests = dict.fromkeys(checked.models, "m")
    one, other = (
        whole(checked, "regmean", 0).key(checked, digests | {checked.data.file: content}) for content in ("x", "y")
    )
    assert one != other
    moved = plan(methods=["regmean"], data={"file": "elsewhere.txt"})
    everyone = dict.fromkeys(moved.models, "m") | {"elsewhere.txt": "x"}
    assert whole(moved, "regmean", 0).key(moved, everyone) == one


def test_a_cell_may_be_called_as_a_baseline_is() -> None:
    checked = plan(cells={"base": {"model": "ma"}, "multitask": {"model": "mb"}}, number={}, multitask="both")
    assert baselines(checked) == {"base": Arm("model", ("base",)), "multitask": Arm("model", ("both",))}
    assert by_cell(checked) == {"base": Arm("model", ("ma",)), "multitask": Arm("model", ("mb",))}
    assert {*baselines(checked).values(), *by_cell(checked).values()} <= {*every_arm(checked)}


def test_a_list_of_methods_will_do() -> None:
    assert plan(methods=["linear", "ties"]).method_of("ties") == "ties"


def test_a_seed_makes_other_arms_only_where_something_is_drawn() -> None:
    checked = plan()
    assert whole(checked, "linear", 3) == whole(checked, "linear", 4)
    assert whole(checked, "dare", 3) != whole(checked, "dare", 4)


def test_the_untuned_arm_is_in_the_grid_and_no_arm_is_done_twice() -> None:
    checked = plan(methods={"linear": {"parameters": {"scale": 1.0}, "tune": {"scale": [0.5, 1.0, 2.0]}}})
    assert grid(checked, "linear", 3)[0] == whole(checked, "linear", 3)
    assert len(grid(checked, "linear", 3)) == 3
    assert [value for value, _ in sweeps(checked, "linear")["scale"]] == [0.5, 1.0, 2.0]
    arms = every_arm(checked)
    assert len(set(arms)) == len(arms)


def test_prefixes_are_nested_and_end_in_everybody() -> None:
    found = [set(arm.models) for _, _, arm in prefixes(plan(number={"methods": ["linear"], "orders": 1}))]
    assert [len(models) for models in found] == [1, 2, 3]
    assert found[0] < found[1] < found[2] == {"ma", "mb", "mc"}


def test_a_key_is_of_contents_not_of_places() -> None:
    checked = plan()
    digests = {"base": "0", "ma": "1", "mb": "2", "mc": "3"}
    arm = whole(checked, "linear", 3)
    elsewhere = parse_plan(CONTENT | {"base": "other"})
    assert arm.key(checked, digests) == arm.key(elsewhere, digests | {"other": "0"})
    assert arm.key(checked, digests) != arm.key(checked, digests | {"mb": "changed"})
    assert arm.key(checked, digests) != whole(checked, "linear", 3, {"scale": 2.0}).key(checked, digests)
    assert Arm("random_vector", arm.models, seed=1).key(checked, digests) != arm.key(checked, digests)


def test_the_nearest_shares_skill_or_domain_where_one_does() -> None:
    cells = {
        "a": {"model": "ma", "skill": "sort", "domain": "plain"},
        "b": {"model": "mb", "skill": "add", "domain": "asked"},
        "c": {"model": "mc", "skill": "max", "domain": "shown"},
        "u": {"task": "unseen", "skill": "sort", "domain": "asked"},
    }
    assert plan(cells=cells).near("u") == ["a", "b"]
    assert plan(cells=cells | {"u": {"task": "unseen", "domain": "shown"}}).near("u") == ["c"]
    assert plan(cells=cells | {"u": {"task": "unseen", "skill": "pick"}}).near("u") == ["a", "b", "c"]
    assert plan(cells=cells | {"u": {"task": "unseen", "skill": "sort", "nearest": "c"}}).near("u") == ["c"]
    assert plan().near("u") == ["a", "b", "c"]


def test_every_key_is_documented_as_it_is() -> None:
    text = (Path(__file__).parents[3] / "docs/compare.md").read_text()
    for schema in (ComparisonPlan, Cell, MethodSettings, NumberSettings):
        for name, field in schema.model_fields.items():
            assert f"| `{name}` | {field.description} |" in text
