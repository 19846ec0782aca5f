import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, NonFiniteWeights
from kinship.measures.alignment import Alignment, align
from kinship.measures.subspaces import OVERSAMPLING, SMALL, OverlapTable, leading_subspaces, overlap_table
from tests.conftest import MakeModel
from tests.kinship.adapters import Q0, UP1, factors, write

BIG = (260, 210)  # for ranks up to 16, beyond what is decomposed whole
WIDE_AND_TALL = [(64, 48), (48, 64), BIG, BIG[::-1]]


def table_of(models: list[Checkpoint], rank: int = 16) -> OverlapTable:
    return overlap_table(models[0], models[1:], align(models[0], models[1:]), rank)


def exact(change: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading left and right singular vectors by a whole decomposition in float64."""
    left, _, right = np.linalg.svd(change.astype(np.float64), full_matrices=False)
    return left[:, :rank], right[:rank].T


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """By the principal angles: the mean of their squared cosines."""
    return float(np.mean(np.linalg.svd(one.T @ other, compute_uv=False) ** 2))


def orthonormal(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((height, width)))[0]


def decaying(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A random matrix of which each singular value is 0.8 of the one before: any number of them stands out."""
    size = min(shape)
    return orthonormal(rng, shape[0], size) * 0.8 ** np.arange(size) @ orthonormal(rng, shape[1], size).T


def family(folder: Path, changes: dict[str, np.ndarray], name: str = "layers.0.w") -> list[Checkpoint]:
    """A base of zeros in one tensor, and models that add ``changes`` to it."""
    nothing = np.zeros_like(next(iter(changes.values())))
    for id, change in {"base": nothing, **changes}.items():
        save_file({name: torch.from_numpy(change).float().contiguous()}, folder / f"{id}.safetensors")
    return [open_checkpoint(folder / f"{id}.safetensors", id=id) for id in ("base", *changes)]


@pytest.mark.parametrize("shape", WIDE_AND_TALL)
@pytest.mark.parametrize("rank", [1, 4, 16])
def test_subspaces_are_those_of_a_whole_decomposition(shape: tuple[int, int], rank: int) -> None:
    assert (min(shape) > SMALL * (16 + OVERSAMPLING)) == (max(shape) == 260)  # both ways are tried
    change = decaying(np.random.default_rng(0), shape).astype(np.float32)
    for found, want in zip(leading_subspaces(change, rank), exact(change, rank), strict=True):
        assert found.shape == want.shape
        np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-6)
        assert overlap(found, want) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("shape", [(500, 400), (400, 500)])
def test_subspaces_of_noise_are_found_too(shape: tuple[int, int]) -> None:
    """The hardest: singular values hardly differ."""
    change = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for found, want in zip(leading_subspaces(change, 16), exact(change, 16), strict=True):
        assert overlap(found, want) > 1 - 1e-5


@pytest.mark.parametrize("shape", WIDE_AND_TALL)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_size_of_a_change_does_not_matter(shape: tuple[int, int], size: float) -> None:
    change = (size * decaying(np.random.default_rng(0), shape)).astype(np.float32)
    for found, want in zip(leading_subspaces(change, 8), exact(change, 8), strict=True):
        assert overlap(found, want) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("shape", WIDE_AND_TALL)
@pytest.mark.parametrize("own", [0, 1, 5, 16, 20])
def test_a_change_of_low_rank_has_no_more_directions_than_its_rank(shape: tuple[int, int], own: int) -> None:
    rng = np.random.default_rng(own)
    change = (rng.standard_normal((shape[0], own)) @ rng.standard_normal((own, shape[1]))).astype(np.float32)
    left, right = leading_subspaces(change, 16)
    assert (left.shape, right.shape) == ((shape[0], min(own, 16)), (shape[1], min(own, 16)))
    if 0 < own <= 16:
        want = exact(change, own)
        assert overlap(left, want[0]) == pytest.approx(1.0, abs=1e-6)
        assert overlap(right, want[1]) == pytest.approx(1.0, abs=1e-6)


def test_the_same_change_gives_the_same_bits() -> None:
    change = np.random.default_rng(0).standard_normal(BIG).astype(np.float32)
    first, second = (leading_subspaces(change, 16) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("shape", WIDE_AND_TALL)
def test_planted_angles_are_found(tmp_path: Path, shape: tuple[int, int]) -> None:
    """One set of left directions is turned out of the other's span by known angles; the right ones likewise."""
    rng = np.random.default_rng(0)
    angles = np.array([0.1, 0.5, 1.0, 1.4])
    left, right = orthonormal(rng, shape[0], 8), orthonormal(rng, shape[1], 8)
    weights = np.array([5.0, 4.0, 3.0, 2.0])
    turned_left = left[:, :4] * np.cos(angles) + left[:, 4:] * np.sin(angles)
    turned_right = right[:, :4] * np.cos(angles / 2) + right[:, 4:] * np.sin(angles / 2)
    models = family(
        tmp_path,
        {
            "one": left[:, :4] * weights @ right[:, :4].T,
            "turned": turned_left * weights[::-1] @ turned_right.T,
            "against": -3 * left[:, :4] * weights @ right[:, :4].T,
            "apart": left[:, 4:] * weights @ right[:, 4:].T,
            "nothing": np.zeros(shape),
        },
    )
    table = table_of(models, rank=4)
    assert table.left[0, 0, 1] == pytest.approx(np.mean(np.cos(angles) ** 2), abs=1e-6)
    assert table.right[0, 0, 1] == pytest.approx(np.mean(np.cos(angles / 2) ** 2), abs=1e-6)
    matrix = table.matrix()
    assert (matrix.metric, matrix.base, matrix.tensors) == ("subspace", "base", 1)
    assert matrix["one", "turned"] == pytest.approx((table.left[0, 0, 1] + table.right[0, 0, 1]) / 2)
    assert matrix["one", "one"] == pytest.approx(1.0, abs=1e-6)
    assert matrix["one", "against"] == pytest.approx(1.0, abs=1e-6)
    assert matrix["one", "apart"] == pytest.approx(0.0, abs=1e-6)
    assert matrix.without_direction() == ("nothing",)
    assert np.isnan(table.expected[0, 4]).all()
    # A wider search finds nothing more: what these changes lack in rank is not made up.
    assert table_of(models, rank=10).ranks.tolist() == [[4, 4, 4, 4, 0]]


def test_a_subspace_within_another_overlaps_it_wholly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((30, 5)), rng.standard_normal((5, 20))
    table = table_of(family(tmp_path, {"all": left @ right, "two": left[:, :2] @ right[:2]}))
    assert table.ranks.tolist() == [[5, 2]]
    assert table.matrix()["all", "two"] == pytest.approx(1.0, abs=1e-6)
    assert table.expected[0, 0, 1] == pytest.approx((5 / 30 + 5 / 20) / 2)
    assert table.expected[0, 1, 1] == pytest.approx((2 / 30 + 2 / 20) / 2)


def test_unrelated_changes_overlap_as_expected_by_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = table_of(family(tmp_path, {f"m{number}": rng.standard_normal((96, 64)) for number in range(8)}), rank=8)
    pairs = np.tril_indices(8, -1)
    left, right = table.left[0][pairs], table.right[0][pairs]
    assert abs(left.mean() - 8 / 96) < 5 * left.std() / len(left) ** 0.5
    assert abs(right.mean() - 8 / 64) < 5 * right.std() / len(right) ** 0.5
    assert table.unrelated() == pytest.approx((8 / 96 + 8 / 64) / 2)


@pytest.fixture
def models(make_model: MakeModel) -> list[Checkpoint]:
    """A base and four models of several dtypes, one of them the base again."""
    base = make_model("base")
    folders = [base, make_model("m1", seed=1, base=base), make_model("m2", seed=2, base=base, dtype=torch.bfloat16)]
    folders += [make_model("m3", seed=3, base=base, dtype=torch.float16), make_model("same", base=base, size=0.0)]
    return [open_checkpoint(folder, id=folder.name) for folder in folders]


def test_table_agrees_with_float64(models: list[Checkpoint]) -> None:
    rank = 4
    table = table_of(models, rank)
    tensors = [load_file(model.path / "model.safetensors") for model in models]
    weights, sums = 0, np.zeros((3, 3))
    assert table.names == tuple(name for name in tensors[0] if tensors[0][name].dim() == 2)
    for index, name in enumerate(table.names):
        base, *others = (each[name].double().numpy() for each in tensors)
        found = [exact(other - base, rank) for other in others[:3]]
        assert table.shapes[index].tolist() == list(base.shape)
        assert table.ranks[index].tolist() == [rank, rank, rank, 0]
        for i, one in enumerate(found):
            for j, other in enumerate(found):
                assert table.left[index, i, j] == pytest.approx(overlap(one[0], other[0]), abs=1e-5)
                assert table.right[index, i, j] == pytest.approx(overlap(one[1], other[1]), abs=1e-5)
                sums[i, j] += base.size * (overlap(one[0], other[0]) + overlap(one[1], other[1])) / 2
        weights += base.size
        for side in (table.left, table.right):
            assert np.isnan(side[index, 3]).all()
            assert np.isnan(side[index, :, 3]).all()
    np.testing.assert_allclose(table.matrix().values[:3, :3], sums / weights, atol=1e-5)


def test_groups_are_means_by_the_number_of_elements(models: list[Checkpoint]) -> None:
    table = table_of(models, 4)
    tensors, layers = table.by_group("tensor"), table.by_group("layer")
    assert list(layers) == ["embeddings", "layer 0", "layer 1"]
    small, large = tensors["model.layers.0.self_attn.q_proj.weight"], tensors["model.layers.0.mlp.up_proj.weight"]
    want = (64 * small["m1", "m2"] + 5600 * large["m1", "m2"]) / 5664
    assert layers["layer 0"]["m1", "m2"] == pytest.approx(want)
    chance = dict(zip(table.names, table.expected[:, 1, 0].tolist(), strict=True))
    assert chance["model.layers.0.self_attn.q_proj.weight"] == pytest.approx(4 / 8)
    assert chance["model.layers.0.mlp.up_proj.weight"] == pytest.approx((4 / 80 + 4 / 70) / 2)


def test_without_a_pair_there_is_no_level_of_chance(models: list[Checkpoint]) -> None:
    assert table_of(models[:2]).unrelated() is None


def test_a_matrix_that_one_left_alone_counts_for_others_only(tmp_path: Path) -> None:
    """The whole-model value of a pair is over the matrices that both changed."""
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 12, 10)), rng.standard_normal((2, 12, 10))
    changes = {"base": 0 * one, "a": one, "b": other, "part": np.stack([one[0], 0 * one[1]])}
    for id, (w, v) in changes.items():
        save_file({"w": torch.from_numpy(w).float(), "v": torch.from_numpy(v).float()}, tmp_path / f"{id}.safetensors")
    table = table_of([open_checkpoint(tmp_path / f"{id}.safetensors", id=id) for id in changes], 3)
    matrix = table.matrix()
    assert matrix["a", "part"] == pytest.approx(1.0, abs=1e-6)
    assert matrix["b", "part"] == pytest.approx(table.by_group("tensor")["w"]["a", "b"], abs=1e-6)
    assert matrix["a", "b"] < 0.9


def test_what_is_no_matrix_is_left_out_and_named(models: list[Checkpoint]) -> None:
    matrix = table_of(models).matrix()
    assert matrix.tensors == 5
    assert matrix.left_out == {"model.norm.weight": "no matrix (1 dimensions)"}
    with pytest.raises(InvalidConfig, match="None of the tensors compared is a matrix"):
        overlap_table(models[0], models[1:], Alignment(("model.norm.weight",)))


@pytest.mark.parametrize("rank", [0, -3])
def test_a_rank_below_one_is_refused(models: list[Checkpoint], rank: int) -> None:
    with pytest.raises(InvalidConfig, match=f"{rank} dimensions"):
        table_of(models, rank)


def test_progress_adds_up_to_the_bytes_compared(models: list[Checkpoint]) -> None:
    told: list[int] = []
    overlap_table(models[0], models[1:], align(models[0], models[1:]), 4, told.append)
    entries = [entry for model in models for entry in model.tensors.values()]
    assert sum(told) == sum(entry.nbytes for entry in entries if len(entry.shape) == 2)
    assert len(told) == 5 * 4


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("who", [0, 2])
def test_non_finite_weight_names_tensor_and_model(tmp_path: Path, bad: float, who: int) -> None:
    opened = []
    for number in range(3):
        weights = torch.full((30, 20), number + 1.0)
        if number == who:
            weights[29, 19] = bad
        save_file({"w": weights}, tmp_path / f"m{number}.safetensors")
        opened.append(open_checkpoint(tmp_path / f"m{number}.safetensors", id=f"m{number}"))
    with pytest.raises(NonFiniteWeights, match=f"'w' of m{who} holds NaN"):
        table_of(opened)


def test_a_change_that_overflows_is_refused(tmp_path: Path) -> None:
    for name, value in (("base", -3e38), ("huge", 3e38)):
        save_file({"w": torch.full((4, 3), value)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(NonFiniteWeights, match="'w' in huge overflows"):
        table_of([open_checkpoint(tmp_path / f"{name}.safetensors", id=name) for name in ("base", "huge")])


def test_adapters_have_the_directions_of_their_factors(make_model: MakeModel, tmp_path: Path) -> None:
    """Rounding to fp32, which fills every rank of a merged change, is not taken for change."""
    base = make_model("base", shapes={f"{Q0}.weight": BIG, f"{UP1}.weight": (40, 30)})
    one, other = (factors(base, {Q0: 3, UP1: 2}, seed, size=0.01) for seed in (1, 2))
    shared = f"base_model.model.{UP1}.lora_B.weight"
    other[shared] = -2 * one[shared]  # the same left directions, other right ones
    folders = [write(tmp_path / "one", one), write(tmp_path / "other", other)]
    opened = [open_checkpoint(base), *(open_checkpoint(f"{base}+{folder}") for folder in folders)]
    table = table_of(opened)
    assert table.names == (f"{Q0}.weight", f"{UP1}.weight")
    assert table.ranks.tolist() == [[3, 3], [2, 2]]
    assert table.left[1, 0, 1] == pytest.approx(1.0, abs=1e-5)
    for index, module in enumerate((Q0, UP1)):
        rights = [
            np.linalg.qr(each[f"base_model.model.{module}.lora_A.weight"].double().numpy().T)[0]
            for each in (one, other)
        ]
        assert table.right[index, 0, 1] == pytest.approx(overlap(*rights), abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    rank=st.integers(1, 45),
    own=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
def test_overlaps_of_any_family_keep_their_bounds(shape: tuple[int, int], rank: int, own: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    changes = {
        "full": rng.standard_normal(shape),
        "low": rng.standard_normal((shape[0], own)) @ rng.standard_normal((own, shape[1])),
    }
    with tempfile.TemporaryDirectory() as folder:
        table = table_of(family(Path(folder), changes), rank)
    for size, side in zip(shape, (table.left[0], table.right[0]), strict=True):
        np.testing.assert_array_equal(side, side.T)
        np.testing.assert_allclose(np.diag(side), 1.0, atol=1e-6)
        assert 0 <= side[0, 1] <= 1
        if max(table.ranks[0]) == size:  # one of them is the whole space
            assert side[0, 1] == pytest.approx(1.0, abs=1e-6)
    assert table.ranks[0, 0] == min(rank, *shape)
    assert table.ranks[0, 1] <= min(rank, own, *shape)
