from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from kinship.errors import KinshipWarning
from service.answers.advice import advise_pairs
from service.answers.dendrogram import join_models

Models = tuple[list[Path], Path]


@pytest.fixture
def models(make_model: Callable[..., Path]) -> Models:
    base = make_model("base")
    return [make_model(f"tune{seed}", seed=seed, base=base) for seed in (1, 2, 3)], base


@pytest.mark.parametrize("answer", [advise_pairs, join_models])
def test_what_was_not_compared_is_told(answer: Callable[..., object], models: Models) -> None:
    (first, *_), _ = models
    tensors = load_file(first / "model.safetensors")
    lost = sorted(tensors)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, first / "model.safetensors")
    with pytest.warns(
        KinshipWarning, match=rf"Only \d+\.\d+ % .*1 tensors were left out, such as {lost}: missing from"
    ):
        answer(*models)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer", [advise_pairs, join_models])
def test_nothing_is_told_where_all_was_compared(answer: Callable[..., object], models: Models) -> None:
    assert answer(*models)
