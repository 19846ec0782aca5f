import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.tensor_names import GROUPINGS, group_labels, group_members
from kinship.errors import InvalidConfig, NonFiniteWeights
from kinship.measures import passes as chunks
from kinship.measures.alignment import Alignment, align
from kinship.measures.gram import GramTable
from kinship.measures.signs import TILE, WORDS, SignTable, count_signs, sign_table
from tests.conftest import MakeModel
from tests.kinship.adapters import Q0, UP1, factors, write

Tensors = dict[str, torch.Tensor]


def table_of(models: list[Checkpoint]) -> SignTable:
    return sign_table(models[0], models[1:], align(models[0], models[1:]))


def counts(base: np.ndarray, models: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Agreeing and shared signs (n, n) of the rows of ``models`` (n, m) less ``base`` (m,), by float64 arithmetic."""
    signs = np.sign(models.astype(np.float64) - base.astype(np.float64)).astype(np.int64)
    both = abs(signs) @ abs(signs).T
    return (both + signs @ signs.T) // 2, both


def stored(model: Checkpoint) -> Tensors:
    return load_file(model.path / "model.safetensors")


def assert_counts(table: SignTable, tensors: list[Tensors]) -> None:
    for index, name in enumerate(table.names):
        base, *models = (each[name].double().numpy().ravel() for each in tensors)
        agree, both = counts(base, np.stack(models))
        np.testing.assert_array_equal(table.agree[index], agree)
        np.testing.assert_array_equal(table.both[index], both)


@pytest.fixture
def models(make_model: MakeModel) -> list[Checkpoint]:
    """Base and four: one in bf16 with many weights as they were, one equal to the base."""
    base = make_model("base")
    folders = [base, make_model("m1", seed=1, base=base), make_model("half", seed=2, base=base, dtype=torch.float16)]
    folders += [make_model("sparse", seed=3, base=base, size=1e-7), make_model("same", base=base, size=0.0)]
    return [open_checkpoint(folder, id=folder.name) for folder in folders]


def test_counts_are_those_of_float64(models: list[Checkpoint]) -> None:
    table = table_of(models)
    assert table.rows == ("base", "m1", "half", "sparse", "same")
    assert table.names == tuple(models[0].tensors)
    assert_counts(table, [stored(model) for model in models])
    sparse = table.both.sum(axis=0)[2, 2]
    assert 0 < sparse < 0.9 * sum(entry.count for entry in models[0].tensors.values())  # rounding left many unchanged


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("chunk", "threads"), [(1000, "1"), (64, "3"), (5600, "3"), (1, "2")])
def test_counts_do_not_depend_on_chunks_or_threads(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, chunk: int, threads: str
) -> None:
    base = make_model("base", dtype=dtype, shapes={"w": (80, 70), "v": (13,)})
    folders = [
        base,
        *(
            make_model(f"m{seed}", seed=seed, base=base, dtype=dtype, shapes={"w": (80, 70), "v": (13,)})
            for seed in (1, 2)
        ),
    ]
    opened = [open_checkpoint(folder, id=folder.name) for folder in folders]
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(chunks, "MIN_CHUNK", 1)
    monkeypatch.setenv("KINSHIP_THREADS", threads)
    assert_counts(table_of(opened), [stored(model) for model in opened])


@pytest.mark.parametrize("width", [1, WORDS - 1, WORDS + 1, TILE - 1, TILE, TILE + 1, 3 * TILE + WORDS])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_kernel_counts_tiles_and_their_ends(size: int, width: int) -> None:
    bits = np.random.default_rng(width).integers(0x3F7E, 0x3F82, (size, width)).astype(np.uint16)  # many are equal
    rows = (bits.astype(np.uint32) << 16).view(np.float32)
    agree, both = (np.tril(table) for table in counts(rows[0], rows[1:]))
    for given_rows in (bits, rows):
        got = np.zeros((2, size - 1, size - 1), dtype=np.int64)
        assert count_signs(given_rows, got[0], got[1]) is None
        np.testing.assert_array_equal(got[0], agree)
        np.testing.assert_array_equal(got[1], both)


def test_zeros_of_either_sign_are_equal_and_the_smallest_change_counts() -> None:
    values = np.array([0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38], dtype=np.float32)  # of which two are subnormal
    pairs = np.array(list(product(values, repeat=3)), dtype=np.float32).T.copy()
    got = np.zeros((2, 2, 2), dtype=np.int64)
    assert count_signs(pairs, got[0], got[1]) is None
    agree, both = counts(pairs[0], pairs[1:])
    np.testing.assert_array_equal(got, [np.tril(agree), np.tril(both)])


def family(folder: Path, base: torch.Tensor, **changes: torch.Tensor) -> list[Checkpoint]:
    """A base of one tensor, and models that add ``changes`` to it."""
    opened = []
    for name, change in {"base": torch.zeros_like(base), **changes}.items():
        save_file({"layers.0.w": base + change}, folder / f"{name}.safetensors")
        opened.append(open_checkpoint(folder / f"{name}.safetensors", id=name))
    return opened


def test_equal_signs_agree_opposite_ones_do_not_and_unrelated_ones_by_half(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    change, other = (torch.randn(40_000, generator=generator) for _ in range(2))
    base = torch.zeros(40_000)
    nothing = torch.zeros(40_000)
    models = family(tmp_path, base, one=change, twice=2 * change, against=-change, other=other, nothing=nothing)
    matrix = table_of(models).matrix()
    assert (matrix.metric, matrix.base, matrix.tensors) == ("sign", "base", 1)
    assert matrix["one", "one"] == matrix["one", "twice"] == 1.0
    assert matrix["one", "against"] == matrix["twice", "against"] == 0.0
    assert abs(matrix["one", "other"] - 0.5) < 5 * 0.5 / 40_000**0.5  # five standard errors
    assert matrix.without_direction() == ("nothing",)
    assert np.isnan(matrix.values[4]).all()


def test_only_what_both_changed_counts(tmp_path: Path) -> None:
    base = torch.tensor([1.0, 1, 1, 1, 1])
    models = family(tmp_path, base, one=torch.tensor([1.0, -1, 1, 0, 0]), other=torch.tensor([2.0, -2, -2, 2, 0]))
    table = table_of(models)
    assert table.both.tolist() == [[[3, 3], [3, 4]]]
    assert table.agree.tolist() == [[[3, 2], [2, 4]]]
    assert table.matrix()["one", "other"] == 2 / 3


def test_disjoint_changes_have_no_agreement(tmp_path: Path) -> None:
    models = family(tmp_path, torch.ones(2), one=torch.tensor([1.0, 0]), other=torch.tensor([0.0, 1]))
    matrix = table_of(models).matrix()
    assert np.isnan(matrix["one", "other"])
    assert matrix["one", "one"] == 1.0


@pytest.mark.parametrize("by", sorted(GROUPINGS))
def test_a_group_is_the_sum_of_its_tensors(models: list[Checkpoint], by: str) -> None:
    table = table_of(models)
    groups = table.by_group(by)
    tensors = [stored(model) for model in models]
    for label, matrix in groups.items():
        chosen = [name for name, own in zip(table.names, group_labels(table.names, by), strict=True) if own == label]
        base, *others = (np.concatenate([each[name].double().numpy().ravel() for name in chosen]) for each in tensors)
        agree, both = counts(base, np.stack(others))
        np.testing.assert_array_equal(matrix.values[:3, :3], agree[:3, :3] / both[:3, :3])
        assert np.isnan(matrix.values[3]).all()


def test_groups_are_those_of_the_gram_table_in_its_order(models: list[Checkpoint]) -> None:
    names = [f"model.layers.{layer}.{part}.weight" for layer in (10, 9, 2) for part in ("mlp.up_proj", "norm")]
    names += ["model.embed_tokens.weight", "lm_head.weight"]
    moments = np.arange(len(names), dtype=np.float64)
    table = GramTable(("base",), tuple(names), 2.0**moments, moments[:, None], moments[:, None, None])
    for by in GROUPINGS:
        found = group_members(names, by)
        assert list(found) == list(table.group_totals(by))
        for label, (_, _, count) in table.group_totals(by).items():
            assert table.counts[found[label]].sum() == count
    with pytest.raises(InvalidConfig, match="'colour'"):
        group_members(names, "colour")


def test_what_is_left_out_is_named(make_model: MakeModel) -> None:
    base = make_model("base", shapes={"w": (5, 4), "v": (3,)})
    model = make_model("m", seed=1, shapes={"w": (5, 4)})
    opened = [open_checkpoint(folder) for folder in (base, model)]
    assert table_of(opened).matrix().left_out == {"v": f"missing from {model}"}


def test_progress_adds_up_to_the_bytes_compared(models: list[Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 1000)
    monkeypatch.setattr(chunks, "MIN_CHUNK", 1)
    told: list[int] = []
    sign_table(models[0], models[1:], align(models[0], models[1:]), told.append)
    assert sum(told) == sum(entry.nbytes for model in models for entry in model.tensors.values())
    assert len(told) > 50


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("who", [0, 2])
def test_non_finite_weight_names_tensor_and_model(tmp_path: Path, bad: float, dtype: torch.dtype, who: int) -> None:
    opened = []
    for number in range(3):
        tensors = {"v": torch.ones(5, dtype=dtype), "w": torch.full((3000,), number + 1, dtype=dtype)}
        if number == who:
            tensors["w"][2999] = bad
        save_file(tensors, tmp_path / f"m{number}.safetensors")
        opened.append(open_checkpoint(tmp_path / f"m{number}.safetensors", id=f"m{number}"))
    with pytest.raises(NonFiniteWeights, match=f"'w' of m{who} holds NaN"):
        table_of(opened)


def test_adapters_are_read_as_the_weights_they_make(make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model("base", dtype=torch.bfloat16)
    folders = [write(tmp_path / f"a{seed}", factors(base, {Q0: 2, UP1: 3}, seed)) for seed in (1, 2)]
    opened = [open_checkpoint(base), *(open_checkpoint(f"{base}+{folder}") for folder in folders)]
    table = sign_table(opened[0], opened[1:], Alignment(tuple(opened[0].tensors)))
    assert_counts(table, [{name: model.tensor(name) for name in model.tensors} for model in opened])
    changed = [name for name, both in zip(table.names, table.both, strict=True) if both.any()]
    assert changed == [f"{Q0}.weight", f"{UP1}.weight"]


@settings(max_examples=40, deadline=None)
@given(
    dtypes=st.lists(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), min_size=2, max_size=6),
    width=st.integers(1, 5000),
    levels=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_any_family_is_counted_exactly(dtypes: list[torch.dtype], width: int, levels: int, seed: int) -> None:
    """Few levels make many equal weights."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [
        {"w": (torch.randint(-levels, levels + 1, (width,), generator=generator) / 7).to(dtype)} for dtype in dtypes
    ]
    with tempfile.TemporaryDirectory() as folder:
        opened = []
        for number, each in enumerate(tensors):
            save_file(each, f"{folder}/{number}.safetensors")
            opened.append(open_checkpoint(f"{folder}/{number}.safetensors"))
        assert_counts(table_of(opened), tensors)
