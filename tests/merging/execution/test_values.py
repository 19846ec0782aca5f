"""What a kernel finds wrong is told with the tensor it was working on, and of which models."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig
from merging.execution.streaming import execute
from merging.merge import planned, write_merge
from merging.offspring.span import open_span
from merging.recipe.schema import parse_recipe

MakeModel = Callable[..., Path]

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def models(make_model: MakeModel) -> list[str]:
    base = make_model("base")
    return [str(base), *(str(make_model(f"m{seed}", seed=seed, base=base, size=1.0)) for seed in (1, 2))]


def recipe_of(method: str, models: list[Any], base: str | None, **parameters: Any) -> dict[str, Any]:
    return {
        "merge_method": method,
        "models": [{"model": model} for model in models],
        "base_model": base,
        "parameters": parameters,
    }


def opposed(method: str, models: Sequence[Any], **parameters: Any) -> dict[str, Any]:
    """Weights that sum to zero in the tensor `UP` alone."""
    content = recipe_of(method, list(models[1:]), None, **parameters)
    for entry, weight in zip(content["models"], (1.0, -1.0), strict=True):
        entry["parameters"] = {"weight": [{"filter": "layers.1.mlp", "value": weight}, {"value": 0.5}]}
    return content


def of(name: str, *models: str) -> str:
    return f"Tensor {name!r} of {', '.join(models)}: "


def refused(content: dict[str, Any], out: Path) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as refusal:
        write_merge(parse_recipe(content), out)
    assert not out.exists()
    return refusal.value


def test_of_a_kernel_that_needs_no_weights(models: list[str], tmp_path: Path) -> None:
    error = refused(opposed("linear", models), tmp_path / "out")
    assert error.message == of(UP, *models[1:]) + "The weights of a linear merge sum to zero."
    assert error.hint == "Set normalize: false to mean it."


def test_of_a_kernel_that_needs_products(models: list[str], tmp_path: Path) -> None:
    assert refused(opposed("multislerp", models), tmp_path / "out").message.startswith(of(UP, *models[1:]))


def test_of_a_kernel_over_tensors(models: list[str], tmp_path: Path) -> None:
    error = refused(recipe_of("emr", models[1:], models[0], task=5), tmp_path / "out")
    assert error.message.startswith(of("model.embed_tokens.weight", *models))


@pytest.mark.parametrize("method", ["linear", "multislerp"])
def test_of_a_merge_inside_another(models: list[str], tmp_path: Path, method: str) -> None:
    """A nested one in the span, of models on disk and of what is made first; the inner error is told once."""
    for inner in (models, [models[0], recipe_of("ties", models[1:], models[0], weight=1.0), models[2]]):
        content = recipe_of("ties", [opposed(method, inner), models[1]], models[0], weight=1.0)
        assert refused(content, tmp_path / "out").message.count("Tensor ") == 1
        assert repr(UP) in refused(content, tmp_path / "out").message


def test_of_the_algebra_of_genomes(models: list[str]) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(open_checkpoint(path)) for path in models]
        span = open_span(opened, with_products=True)
        with pytest.raises(InvalidConfig) as refusal:
            span.merge(parse_recipe(opposed("multislerp", models)), {id: span.founder(id) for id in models})
    assert refusal.value.message.startswith(of(UP, *models[1:]))


def test_kernels_run_on_the_device_asked_for_if_they_can(models: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Another name of the CPU; torch does not keep it, so what is moved there is watched.
    move = torch.Tensor.to
    moved: list[object] = []

    def watched(tensor: torch.Tensor, place: Any, *rest: Any, **options: Any) -> torch.Tensor:
        moved.append(place)
        return move(tensor, place, *rest, **options)

    for name, parameters, device in (("tsv", {}, "cpu:0"), ("ties", {"weight": 0.5}, "cpu")):
        content = recipe_of(name, models[1:], models[0], **parameters)
        with planned(parse_recipe(content)) as plan:
            expected = [piece.data.tobytes() for piece in execute(plan.tensors)]
            moved.clear()
            with monkeypatch.context() as patch:
                patch.setattr(torch.Tensor, "to", watched)
                assert [piece.data.tobytes() for piece in execute(plan.tensors, device="cpu:0")] == expected
        assert {place for place in moved if isinstance(place, str)} == {device}


def test_a_device_that_is_not_there(models: list[str], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InvalidConfig, match="no CUDA device"):
        write_merge(parse_recipe(recipe_of("tsv", models[1:], models[0])), tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()
