"""A comparison that was made once is answered again without reading a weight, and never from files that changed."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InputsChanged
from kinship.measures.comparison import ComparisonOptions, compare
from kinship.measures.preflight import preflight
from tests.conftest import MakeModel

Family = tuple[Path, list[Path]]


@pytest.fixture
def family(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """A base and three models, written a while ago, with a cache of their own."""
    monkeypatch.setenv("KINSHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("kinship.file_state.YOUNG_SECONDS", 0.0)
    base = make_model("base")
    models = [make_model(f"m{seed}", seed, base) for seed in (1, 2, 3)]
    for folder in [base, *models]:
        age(folder)
    return base, models


def age(folder: Path, seconds: float = 3600.0) -> None:
    for file in folder.iterdir():
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - seconds))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of tensors as they are read."""
    names: list[str] = []
    read_into: Callable[..., None] = Checkpoint.read_into

    def counted(self: Checkpoint, name: str, start: int, view: memoryview) -> None:
        names.append(name)
        read_into(self, name, start, view)

    monkeypatch.setattr(Checkpoint, "read_into", counted)
    return names


def test_asking_again_reads_no_weights(family: Family, reads: list[str]) -> None:
    base, models = family
    first = compare(models, base)
    assert reads
    assert not first.remembered
    reads.clear()
    again = compare(models, base)
    assert again.remembered
    for metric in ("pcc", "cosine"):
        np.testing.assert_array_equal(again.matrix(metric).values, first.matrix(metric).values)
        for label, group in again.by_group("layer", metric).items():
            np.testing.assert_array_equal(group.values, first.by_group("layer", metric)[label].values)
    assert reads == []


def test_some_models_and_tensors_in_another_order_read_no_weights(family: Family, reads: list[str]) -> None:
    base, models = family
    fresh = kinship_matrix(models[::-2], base, options=ComparisonOptions(include="mlp"))
    for file in Path(os.environ["KINSHIP_CACHE"]).iterdir():
        file.unlink()
    compare(models, base)
    reads.clear()
    found = kinship_matrix(models[::-2], base, options=ComparisonOptions(include="mlp"))
    assert reads == []
    assert found.ids == fresh.ids
    np.testing.assert_allclose(found.values, fresh.values, rtol=1e-12)


def test_further_model_is_read(family: Family, reads: list[str]) -> None:
    base, models = family
    compare(models[:2], base)
    reads.clear()
    assert not compare(models, base).remembered
    assert reads


def test_changed_file_is_read_again(family: Family, reads: list[str]) -> None:
    base, models = family
    before = kinship_matrix(models, base)
    tensors = {
        name: tensor + 0.1 * torch.sin(tensor) for name, tensor in load_file(models[0] / "model.safetensors").items()
    }
    save_file(tensors, models[0] / "model.safetensors")
    age(models[0], 10.0)
    reads.clear()
    after = kinship_matrix(models, base)
    assert reads
    assert after[str(models[0]), str(models[1])] != before[str(models[0]), str(models[1])]
    assert after[str(models[1]), str(models[2])] == before[str(models[1]), str(models[2])]


def test_files_that_change_while_they_are_read_are_not_remembered(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, models = family
    read_into: Callable[..., None] = Checkpoint.read_into

    def disturbed(self: Checkpoint, name: str, start: int, view: memoryview) -> None:
        read_into(self, name, start, view)
        age(models[0], 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "read_into", disturbed)
        with pytest.raises(InputsChanged):
            compare(models, base)
    assert not compare(models, base).remembered


def test_close_pairs_are_measured_once(family: Family, make_model: MakeModel, reads: list[str]) -> None:
    base, models = family
    twin = make_model("twin", 7, models[0], size=1e-5)
    age(twin)
    everyone = [*models, twin]
    compare(everyone, base, "pcc")
    reads.clear()
    exact = kinship_matrix(everyone, base, "euclidean")  # the close pair is read for its difference
    assert reads
    reads.clear()
    assert kinship_matrix(everyone, base, "euclidean")[str(models[0]), str(twin)] == exact[str(models[0]), str(twin)]
    assert reads == []
    wanted = sum(
        float((one.double() - other.double()).square().sum())
        for one, other in zip(
            *(load_file(folder / "model.safetensors").values() for folder in (models[0], twin)), strict=True
        )
    )
    assert exact[str(models[0]), str(twin)] == pytest.approx(wanted**0.5, rel=1e-6)


def test_plan_tells_that_nothing_has_to_be_read(family: Family) -> None:
    base, models = family
    assert preflight(models, base).bytes_to_read > 0
    compare(models, base)
    assert preflight(models, base).bytes_to_read == 0


def test_digest_is_paid_for_once(family: Family, reads: list[str]) -> None:
    base, _ = family
    with open_checkpoint(base) as checkpoint:
        digest = checkpoint.digest
    assert reads
    reads.clear()
    with open_checkpoint(base) as checkpoint:
        assert checkpoint.digest == digest
    assert reads == []
