"""Arms as weights: the same as `kinship merge` writes, known by their content."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinship.checkpoints.opening import open_checkpoint
from merging.merge import write_merge
from search.comparison.arms import Arm, whole
from search.comparison.making import make, random_average
from search.comparison.plan import ComparisonPlan, parse_plan
from tests.conftest import MakeModel


@pytest.fixture
def plan(make_model: MakeModel) -> ComparisonPlan:
    base = make_model("base")
    cells = {name: {"model": str(make_model(name, seed, base))} for seed, name in enumerate(("a", "b", "c"), 1)}
    methods = {"task_arithmetic": {}, "dare_linear": {"parameters": {"density": 0.5}}, "ties": {}}
    return parse_plan({"base": str(base), "cells": cells, "evaluate": {"tasks": ["a"]}, "methods": methods})


@pytest.mark.parametrize("method", ["task_arithmetic", "dare_linear", "ties"])
def test_an_arm_is_what_a_merge_writes(plan: ComparisonPlan, method: str, tmp_path: Path) -> None:
    arm = whole(plan, method, 7)
    made = make(plan, arm, "arm")
    written = write_merge(arm.recipe(plan), tmp_path / "merged", seed=arm.seed)
    with open_checkpoint(str(written)) as folder:
        assert made.candidate.identity == folder.digest
    assert made.merge is not None
    assert made.merge.seconds > 0


def test_weights_that_are_the_bases_are_known_as_such(plan: ComparisonPlan) -> None:
    nothing = make(plan, whole(plan, "task_arithmetic", 0, {"lambda": 0.0}), "nothing")
    base = make(plan, Arm("model", (plan.base,)), "base")
    assert nothing.candidate.identity == base.candidate.identity
    assert dict(base.candidate.tensors()).keys() == dict(nothing.candidate.tensors()).keys()


def test_a_random_task_vector_is_as_long_as_the_models_tensor_by_tensor(plan: ComparisonPlan) -> None:
    model = plan.cells["a"].model
    assert model is not None
    found = random_average(plan.base, (model,), seed=5)
    base, own = (load_file(Path(path) / "model.safetensors") for path in (plan.base, model))
    for name, tensor in found.items():
        drawn, moved = (one.double() - base[name].double() for one in (tensor, own[name]))
        assert drawn.norm() == pytest.approx(float(moved.norm()), rel=1e-5)
        assert abs(float(torch.nn.functional.cosine_similarity(drawn.flatten(), moved.flatten(), dim=0))) < 0.9
    again = random_average(plan.base, (model,), seed=5)
    other = random_average(plan.base, (model,), seed=6)
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert not any(torch.equal(found[name], other[name]) for name in found)
