import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.errors import InvalidConfig, KinshipWarning
from service.answers.advice import advise_pairs
from service.answers.dendrogram import join_models
from service.answers.matrix import measure_matrix, models_of
from tests.kinship.adapters import write

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
    with pytest.warns(KinshipWarning, match=rf"Only \d+\.\d+ % .*1 tensor was left out: {lost}: missing from"):
        answer(*models)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer", [advise_pairs, join_models])
def test_nothing_is_told_where_all_was_compared(answer: Callable[..., object], models: Models) -> None:
    assert answer(*models)


def test_copies_of_the_base_are_named_for_what_they_are(models: Models, tmp_path: Path) -> None:
    """In advice they would be the least related pairs, with the most to gain."""
    others, base = models
    weights = load_file(base / "model.safetensors")
    for name, dtype in (("same", torch.float32), ("half", torch.float16), ("brain", torch.bfloat16)):
        shutil.copytree(base, tmp_path / name)
        save_file({key: one.to(dtype) for key, one in weights.items()}, tmp_path / name / "model.safetensors")
    copies = [tmp_path / name for name in ("same", "half", "brain")]
    with pytest.warns(KinshipWarning) as told:
        advise_pairs([*others, *copies], base)
    said = [str(one.message) for one in told]
    for name, words in zip(copies, ("equals the base", "rounding to float16", "rounding to bfloat16"), strict=True):
        assert [one for one in said if one.startswith(str(name)) and words in one], name
    assert len(said) == len(copies)
    assert not [note for note in measure_matrix(others, base).notes if "rounding" in note]


def test_adapters_without_a_base_are_sent_where_none_is_needed(tmp_path: Path) -> None:
    pair = {f"base_model.model.up_proj.lora_{side}.weight": torch.ones(4, 4) for side in "AB"}
    adapters = [write(tmp_path / name, pair) for name in ("one", "two")]
    for models, sent in ((adapters, True), ([*adapters, tmp_path], False)):
        with pytest.raises(InvalidConfig, match="no base") as raised:
            models_of([str(one) for one in models], None)
        assert ("--recover" in (raised.value.hint or "")) is sent
