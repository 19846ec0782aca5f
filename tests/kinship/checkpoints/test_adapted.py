"""A base with an adapter on top is a checkpoint like any other; adapters are compared from their factors."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix
from kinship.checkpoints import adapted
from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import FLOAT32
from kinship.checkpoints.low_rank import LowRank
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import NonFiniteWeights
from kinship.measures import adapters as factor_kinship
from tests.conftest import SHAPES, MakeModel
from tests.kinship.adapters import Q0, Q1, UP0, UP1, factors, write

METRICS = ["pcc", "cosine", "euclidean"]
NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"


@pytest.fixture
def base(make_model: MakeModel) -> Path:
    return make_model("base")


@pytest.fixture
def adapters(base: Path, tmp_path: Path) -> list[Path]:
    """Three adapters of different ranks on different but overlapping modules; the third goes the other way."""
    shared = factors(base, {UP0: 4}, seed=9)
    return [
        write(tmp_path / "one", shared | factors(base, {Q0: 2, UP1: 3}, seed=1), lora_alpha=4),
        write(tmp_path / "two", shared | factors(base, {Q0: 2, Q1: 5}, seed=2), use_rslora=True, lora_alpha=3),
        write(tmp_path / "three", shared | factors(base, {UP1: 1, Q1: 2}, seed=3), alpha_pattern={"up_proj": -5}),
    ]


@pytest.fixture
def whole_adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter that also replaces the norm, and the embeddings beneath a change of theirs."""
    generator = torch.Generator().manual_seed(4)
    tensors = factors(base, {UP1: 2}, seed=4) | {
        "base_model.model.model.norm.modules_to_save.weight": torch.randn(8, generator=generator),
        "base_model.model.model.embed_tokens.base_layer.weight": torch.randn(11, 8, generator=generator),
        "base_model.model.model.embed_tokens.lora_embedding_A": torch.randn(3, 11, generator=generator),
        "base_model.model.model.embed_tokens.lora_embedding_B": torch.randn(8, 3, generator=generator),
    }
    return write(tmp_path / "whole", tensors, lora_alpha=6)


def merged(base: Path, adapter: Path) -> Path:
    """The merged model on disk, fp32, its weights computed here in float64."""
    with open_checkpoint(f"{base}+{adapter}") as checkpoint:
        assert isinstance(checkpoint, AdaptedCheckpoint)
        tensors = load_file(base / "model.safetensors")
        changes = checkpoint.adapter.changes.items()
        tensors |= {name: torch.from_numpy(each.replaced) for name, each in changes if each.replaced is not None}
        for name, change in ((name, each.low_rank) for name, each in changes if each.low_rank is not None):
            delta = torch.from_numpy(change.scale * (change.left.astype(np.float64) @ change.right.astype(np.float64)))
            tensors[name] = (tensors[name].double() + delta).float()
    folder = base.parent / f"merged {adapter.name}"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def references(base: Path, adapters: list[Path]) -> list[str]:
    return [f"{base}+{adapter}" for adapter in adapters]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of tensors read from files by `Checkpoint.read_into`, in order."""
    names: list[str] = []
    read_into = Checkpoint.read_into

    def counted(self: Checkpoint, name: str, start: int, view: memoryview) -> None:
        names.append(name)
        read_into(self, name, start, view)

    monkeypatch.setattr(Checkpoint, "read_into", counted)
    return names


# The checkpoint


def test_changed_tensors_are_those_of_the_merged_model(base: Path, adapters: list[Path], whole_adapter: Path) -> None:
    for adapter in [*adapters, whole_adapter]:
        with open_checkpoint(f"{base}+{adapter}") as checkpoint, open_checkpoint(merged(base, adapter)) as wanted:
            for name in SHAPES:
                assert torch.allclose(checkpoint.tensor(name), wanted.tensor(name), rtol=0, atol=1e-6)


def test_replaced_embeddings_are_changed_after_that(base: Path, whole_adapter: Path) -> None:
    file = load_file(whole_adapter / "adapter_model.safetensors")
    key = "base_model.model.model.embed_tokens."
    change = (file[f"{key}lora_embedding_B"] @ file[f"{key}lora_embedding_A"]).T * 2.0
    with open_checkpoint(f"{base}+{whole_adapter}") as checkpoint:
        wanted = file[f"{key}base_layer.weight"] + change
        assert torch.allclose(checkpoint.tensor(EMBEDDING), wanted, rtol=0, atol=1e-5)
        assert torch.equal(checkpoint.tensor(NORM), file["base_model.model.model.norm.modules_to_save.weight"])


def test_embeddings_are_stored_alike_whatever_way_round_the_layers_are(base: Path, tmp_path: Path) -> None:
    tensors = {
        "base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(3, 11),
        "base_model.model.model.embed_tokens.lora_embedding_B": torch.arange(24.0).reshape(8, 3),
    }
    plain, turned = (write(tmp_path / f"{flag}", tensors, fan_in_fan_out=flag) for flag in (False, True))
    with open_checkpoint(f"{base}+{plain}") as one, open_checkpoint(f"{base}+{turned}") as other:
        assert one.digest == other.digest


def test_untouched_tensors_keep_their_bytes_and_dtype(make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model("brain", dtype=torch.bfloat16)
    tensors = load_file(base / "model.safetensors") | {"steps": torch.arange(3), "mask": torch.tensor([True, False])}
    save_file(tensors, base / "model.safetensors")
    new_steps = {"base_model.model.steps": torch.arange(3, 6)}
    adapter = write(tmp_path / "lora", factors(base, {Q0: 2}) | new_steps)
    with open_checkpoint(f"{base}+{adapter}") as checkpoint:
        assert checkpoint.tensors[f"{Q0}.weight"].dtype == FLOAT32
        assert torch.equal(checkpoint.tensor("steps"), torch.arange(3, 6))
        for name in tensors.keys() - {f"{Q0}.weight", "steps"}:
            assert checkpoint.tensors[name] == open_checkpoint(base).tensors[name]
            assert torch.equal(checkpoint.tensor(name), tensors[name])


def test_any_range_reads_the_same_bits(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapted, "TILE_ELEMENTS", 512)
    base = make_model("base")
    adapter = write(tmp_path / "lora", factors(base, {UP0: 16}))
    name = f"{UP0}.weight"
    with open_checkpoint(f"{base}+{adapter}") as checkpoint:
        whole = checkpoint.read(name)
        for start, count in [(0, 1), (69, 2), (3, 1000), (5599, 1), (70, 70), (0, 0), (4000, 1600)]:
            assert torch.equal(checkpoint.read(name, start, count), whole[start : start + count])
        for size in (7, 70, 999):
            parts = [checkpoint.read(name, *block) for block in checkpoint.blocks(name, size)]
            assert torch.equal(torch.cat(parts), whole)


def test_bits_do_not_depend_on_the_number_of_threads(make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model("base", shapes={f"{Q0}.weight": (700, 900)})
    adapter = write(tmp_path / "lora", factors(base, {Q0: 64}))
    before, digests = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with open_checkpoint(f"{base}+{adapter}") as checkpoint:
                digests.add(checkpoint.digest)
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_digest_is_that_of_the_adapted_weights(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    def digest(*parts: Path) -> str:
        with open_checkpoint("+".join(map(str, parts))) as checkpoint:
            return checkpoint.digest

    digests = {digest(base), *(digest(base, adapter) for adapter in adapters)}
    assert len(digests) == 4
    assert digest(base, adapters[0]) == digest(base, adapters[0])
    with open_checkpoint(f"{base}+{adapters[0]}") as checkpoint:
        save_file({name: checkpoint.tensor(name) for name in checkpoint.tensors}, tmp_path / "saved.safetensors")
    assert digest(tmp_path / "saved.safetensors") == digest(base, adapters[0])
    nothing = {key: tensor * 0 for key, tensor in factors(base, {Q0: 2}).items()}
    assert digest(base, write(tmp_path / "nothing", nothing)) == digest(base)


def test_names_and_files_of_an_adapted_checkpoint(base: Path, adapters: list[Path]) -> None:
    reference = f"{base}+{adapters[0]}"
    with open_checkpoint(reference) as checkpoint:
        assert isinstance(checkpoint, AdaptedCheckpoint)
        assert (checkpoint.id, checkpoint.base.id, checkpoint.path) == (reference, str(base), base)
        assert checkpoint.config["model_type"] == "llama"
        before = checkpoint.tensor(NORM)
        checkpoint.close()
        assert torch.equal(checkpoint.tensor(NORM), before)
    assert open_checkpoint({"path": base, "adapter": adapters[0]}, id="mine").id == "mine"
    assert open_checkpoint("base+one", root=base.parent).id == "base+one"


# Kinship


def close(one: np.ndarray, other: np.ndarray, metric: str) -> bool:
    relative = metric == "euclidean"
    return np.allclose(one, other, rtol=1e-6 if relative else 0, atol=0 if relative else 1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_kinship_from_factors_is_that_of_the_merged_models(
    base: Path, adapters: list[Path], reads: list[str], metric: str
) -> None:
    found = kinship_matrix(references(base, adapters), base, metric)
    assert reads == []
    wanted = kinship_matrix([merged(base, adapter) for adapter in adapters], base, metric)
    assert reads
    assert close(found.values, wanted.values, metric)
    assert len(np.unique(np.abs(found.values).round(3))) == 4


@pytest.mark.parametrize("metric", METRICS)
def test_tensors_replaced_whole_are_compared_too(
    base: Path, adapters: list[Path], whole_adapter: Path, reads: list[str], metric: str
) -> None:
    everyone = [*adapters, whole_adapter]
    found = kinship_matrix(references(base, everyone), base, metric)
    assert set(reads) <= {NORM, EMBEDDING}
    wanted = kinship_matrix([merged(base, adapter) for adapter in everyone], base, metric)
    assert close(found.values, wanted.values, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_adapters_and_whole_models_are_compared_together(
    base: Path, adapters: list[Path], make_model: MakeModel, metric: str
) -> None:
    tuned = make_model("tuned", seed=5, base=base)
    found = kinship_matrix([*references(base, adapters), str(tuned)], base, metric)
    wanted = kinship_matrix([*(merged(base, adapter) for adapter in adapters), tuned], base, metric)
    assert close(found.values, wanted.values, metric)


def test_adapters_on_another_base_are_compared_through_their_weights(
    base: Path, adapters: list[Path], make_model: MakeModel, reads: list[str]
) -> None:
    other = make_model("other", seed=6, base=base)
    found = kinship_matrix(references(other, adapters), base)
    assert reads
    wanted = kinship_matrix([merged(other, adapter) for adapter in adapters], base)
    assert close(found.values, wanted.values, "pcc")


def test_distance_of_near_twins_is_exact_without_reading(base: Path, tmp_path: Path, reads: list[str]) -> None:
    tensors = factors(base, {UP0: 4}, seed=1)
    twin = tensors | {key: tensor * (1 + 1e-5) for key, tensor in tensors.items() if "lora_B" in key}
    pair = [write(tmp_path / "one", tensors), write(tmp_path / "twin", twin)]
    found = kinship_matrix(references(base, pair), base, "euclidean").values[0, 1]
    assert reads == []
    left, right = (tensors[key].double() for key in sorted(tensors, reverse=True))
    difference = twin[f"base_model.model.{UP0}.lora_B.weight"].double() - left
    assert found == pytest.approx(float((2.0 * difference @ right).norm()), rel=1e-6)


def test_adapter_that_changes_nothing_has_no_direction(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    fresh = {key: tensor * ("lora_A" in key) for key, tensor in factors(base, {Q0: 2}).items()}
    everyone = [adapters[0], write(tmp_path / "fresh", fresh)]
    found = kinship_matrix(references(base, everyone), base)
    assert found.without_direction() == (f"{base}+{everyone[1]}",)


def test_disjoint_adapters_are_orthogonal(base: Path, tmp_path: Path) -> None:
    pair = [write(tmp_path / "one", factors(base, {UP0: 2})), write(tmp_path / "two", factors(base, {UP1: 2}))]
    assert kinship_matrix(references(base, pair), base, "cosine").values[0, 1] == 0.0


def test_change_that_overflows_is_refused(base: Path, tmp_path: Path) -> None:
    tensors = {key: tensor * 1e37 for key, tensor in factors(base, {Q0: 2}, size=1.0).items()}
    adapter = write(tmp_path / "huge", tensors)
    with pytest.raises(NonFiniteWeights), open_checkpoint(f"{base}+{adapter}") as checkpoint:
        kinship_matrix([checkpoint.id, str(base)], base)


def test_stacked_factors_may_be_reduced_in_parts(
    base: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = kinship_matrix(references(base, adapters), base).values
    monkeypatch.setattr(factor_kinship, "INNER", 7)
    assert np.allclose(kinship_matrix(references(base, adapters), base).values, whole, rtol=0, atol=1e-7)


def test_stack_of_factors_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    concatenate: Callable[..., np.ndarray] = np.concatenate

    def counted(parts: list[np.ndarray], *where: int, **options: object) -> np.ndarray:
        stacked = concatenate(parts, *where, **options)
        seen.append(stacked.size)
        return stacked

    monkeypatch.setattr(factor_kinship, "INNER", 100)
    monkeypatch.setattr(np, "concatenate", counted)
    change = LowRank(np.ones((5000, 3), np.float32), np.ones((3, 40), np.float32), 1.0)
    gram, sums = factor_kinship.low_rank_moments([change, change])
    assert max(seen) <= 100 * 6
    assert gram.tolist() == [[1_800_000.0] * 2] * 2
    assert sums.tolist() == [600_000.0] * 2
