import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import NonFiniteWeights
from kinship.measures import passes as chunks
from kinship.measures.alignment import Alignment, align
from kinship.measures.gram import GramTable, gram_table

MakeModel = Callable[..., Path]


@pytest.fixture
def models(make_model: MakeModel) -> list[Checkpoint]:
    base = make_model("base")
    folders = [base, *(make_model(f"m{seed}", seed=seed, base=base) for seed in (1, 2, 3))]
    return [open_checkpoint(folder, id=folder.name) for folder in folders]


def reference(models: list[Checkpoint], name: str) -> np.ndarray:
    base, *others = (load_file(model.path / "model.safetensors")[name].double().numpy().ravel() for model in models)
    return np.stack([base, *(other - base for other in others)])


def table_of(models: list[Checkpoint]) -> GramTable:
    return gram_table(models[0], models[1:], align(models[0], models[1:]))


def test_table_holds_the_products_of_base_and_task_vectors(models: list[Checkpoint]) -> None:
    table = table_of(models)
    assert table.rows == ("base", "m1", "m2", "m3")
    assert table.names == tuple(models[0].tensors)
    for index, name in enumerate(table.names):
        rows = reference(models, name)
        norms = np.linalg.norm(rows, axis=1)
        np.testing.assert_array_less(np.abs(table.grams[index] - rows @ rows.T), 1e-6 * np.outer(norms, norms))
        np.testing.assert_allclose(table.sums[index], rows.sum(axis=1), atol=1e-6 * np.abs(rows).sum())
        assert table.counts[index] == rows.shape[1]
    grams, sums, count = table.total()
    np.testing.assert_allclose(grams, table.grams.sum(axis=0))
    np.testing.assert_allclose(sums, table.sums.sum(axis=0))
    assert count == sum(models[0].tensors[name].count for name in table.names)


@pytest.mark.parametrize("chunk", [1000, 64, 5600, 4096])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_table_does_not_depend_on_chunks_or_threads(
    models: list[Checkpoint], monkeypatch: pytest.MonkeyPatch, chunk: int, threads: str
) -> None:
    want = table_of(models)
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(chunks, "MIN_CHUNK", 1)
    monkeypatch.setenv("KINSHIP_THREADS", threads)
    got = table_of(models)
    np.testing.assert_allclose(got.grams, want.grams, rtol=1e-6, atol=1e-6 * np.abs(want.grams[:, 1:, 1:]).max())
    np.testing.assert_allclose(got.sums, want.sums, rtol=1e-6, atol=1e-5)


def test_a_fine_tune_is_measured_by_its_small_difference(tmp_path: Path) -> None:
    """Products of raw fp32 weights would lose a difference of 2^-20 of the weights altogether."""
    base = torch.full((5000,), 1.0)
    step = torch.zeros(5000)
    step[::2] = 2.0**-20
    save_file({"w": base}, tmp_path / "base.safetensors")
    save_file({"w": base + step}, tmp_path / "tuned.safetensors")
    tuned = open_checkpoint(tmp_path / "tuned.safetensors")
    table = gram_table(open_checkpoint(tmp_path / "base.safetensors"), [tuned], Alignment(("w",)))
    assert table.grams[0, 1, 1] == pytest.approx(2500 * 2.0**-40, rel=1e-6)


def test_progress_adds_up_to_the_bytes_compared(models: list[Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 1000 * len(models))
    monkeypatch.setattr(chunks, "MIN_CHUNK", 1)
    told: list[int] = []
    gram_table(models[0], models[1:], align(models[0], models[1:]), told.append)
    assert sum(told) == sum(entry.nbytes for model in models for entry in model.tensors.values())
    assert max(told) <= 4 * 1000 * len(models)


def test_table_round_trips_through_npz(models: list[Checkpoint]) -> None:
    table = table_of(models)
    file = io.BytesIO()
    table.save(file)
    file.seek(0)
    again = GramTable.load(file)
    assert (again.rows, again.names) == (table.rows, table.names)
    for field in ("counts", "sums", "grams"):
        np.testing.assert_array_equal(getattr(again, field), getattr(table, field))


def test_saved_table_holds_no_pickle(models: list[Checkpoint]) -> None:
    file = io.BytesIO()
    np.savez(file, rows=np.array([{"an": "object"}]), names=np.array(["a"]), counts=0, sums=0, grams=0)
    file.seek(0)
    with pytest.raises(ValueError, match="allow_pickle"):
        GramTable.load(file)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("who", ["base", "m2"])
def test_non_finite_weight_names_tensor_and_model(models: list[Checkpoint], bad: float, who: str) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    file = next(model.path for model in models if model.id == who) / "model.safetensors"
    tensors = load_file(file)
    tensors[name][79, 69] = bad  # the very last element
    save_file(tensors, file)
    reopened = [open_checkpoint(model.path, id=model.id) for model in models]
    with pytest.raises(NonFiniteWeights) as refusal:
        table_of(reopened)
    assert repr(name) in refusal.value.message
    assert f" {who} " in refusal.value.message


def test_weights_that_overflow_are_refused(tmp_path: Path) -> None:
    for name, value in (("base", 0.0), ("huge", 1e30)):
        save_file({"w": torch.full((9000,), value)}, tmp_path / f"{name}.safetensors")
    base, huge = (open_checkpoint(tmp_path / f"{name}.safetensors") for name in ("base", "huge"))
    with pytest.raises(NonFiniteWeights, match="'w' overflows"):
        gram_table(base, [huge], Alignment(("w",)))


def test_integer_buffers_count_for_nothing(tmp_path: Path) -> None:
    """A span holds every tensor of its founders; buffers are not weights and must not enter kinship."""
    tensors = {"w": torch.arange(6.0), "ids": torch.arange(100)}
    save_file(tensors, tmp_path / "base.safetensors")
    save_file(tensors | {"w": torch.ones(6)}, tmp_path / "tuned.safetensors")
    base, tuned = (open_checkpoint(tmp_path / f"{name}.safetensors") for name in ("base", "tuned"))
    with_buffer = gram_table(base, [tuned], Alignment(("ids", "w"))).total()
    without = gram_table(base, [tuned], Alignment(("w",))).total()
    for got, want in zip(with_buffer, without, strict=True):
        np.testing.assert_array_equal(got, want)


def test_table_is_the_same_to_the_bit_whatever_the_threads(
    models: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 1024)
    monkeypatch.setattr(chunks, "MIN_CHUNK", 1)
    monkeypatch.setenv("KINSHIP_THREADS", "1")
    one = table_of(models)
    monkeypatch.setenv("KINSHIP_THREADS", "4")
    np.testing.assert_array_equal(table_of(models).grams, one.grams)


def test_number_of_threads_does_not_change_a_bit(models: list[Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 500)
    monkeypatch.setattr(chunks, "MIN_CHUNK", 1)
    tables = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("KINSHIP_THREADS", threads)
        tables.append(table_of(models))
    for table in tables[1:]:
        assert table.grams.tobytes() == tables[0].grams.tobytes()
        assert table.sums.tobytes() == tables[0].sums.tobytes()


@pytest.mark.parametrize("metric", ["pcc", "cosine", "euclidean"])
def test_a_matrix_leaves_the_base_out_and_takes_all_tensors_as_one(metric: str) -> None:
    rng = np.random.default_rng(2)
    parts = [rng.normal(0.1, 1, (4, count)) for count in (30, 50)]
    table = GramTable(
        ("base", "a", "b", "c"),
        ("t1", "t2"),
        np.array([30.0, 50.0]),
        np.stack([part.sum(axis=1) for part in parts]),
        np.stack([part @ part.T for part in parts]),
        {"left": "out"},
    )
    vectors = np.hstack(parts)[1:]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    want = {
        "pcc": np.corrcoef(vectors),
        "cosine": unit @ unit.T,
        "euclidean": np.linalg.norm(vectors[:, None] - vectors[None], axis=2),
    }[metric]
    matrix = table.matrix(metric)
    np.testing.assert_allclose(matrix.values, want, atol=1e-12)
    assert (matrix.base, matrix.ids, matrix.tensors) == ("base", ("a", "b", "c"), 2)
    assert matrix.left_out == {"left": "out"}
    assert matrix.spec.name == metric
