import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import KinshipMatrix, kinship_matrix, preflight, recorded_tree, recover
from kinship.checkpoints.opening import INDEX_NAME
from kinship.errors import InvalidConfig, MismatchedModels, NonFiniteWeights, ReferenceNotFound
from kinship.measures import passes as chunks
from kinship.measures.comparison import ComparisonOptions, compare
from tests.conftest import SHAPES, MakeModel

Tensors = dict[str, torch.Tensor]


def load(folder: Path) -> Tensors:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def task_vectors(base: Path, models: list[Path]) -> np.ndarray:
    """Task vectors (n, elements) in float64, all tensors end to end, as the `safetensors` library reads them."""
    names = sorted(load(base))
    flat = [np.concatenate([load(folder)[name].double().numpy().ravel() for name in names]) for folder in models]
    origin = np.concatenate([load(base)[name].double().numpy().ravel() for name in names])
    return np.stack(flat) - origin


def expected(metric: str, vectors: np.ndarray) -> np.ndarray:
    match metric:
        case "pcc":
            return np.corrcoef(vectors)
        case "cosine":
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            return unit @ unit.T
        case _:
            return np.linalg.norm(vectors[:, None] - vectors[None, :], axis=2)


def negated(folder: Path, base: Path, model: Path) -> Path:
    """A model whose task vector is that of ``model`` times -0.5."""
    folder.mkdir()
    origin, other = load(base), load(model)
    tensors = {name: (1.5 * origin[name].double() - 0.5 * other[name].double()).float() for name in origin}
    save_file(tensors, folder / "model.safetensors")
    return folder


def shard(folder: Path) -> Path:
    """Split the one file of ``folder`` in two, with an index."""
    tensors = load(folder)
    (folder / "model.safetensors").unlink()
    parts = {"one.safetensors": sorted(tensors)[1::2], "two.safetensors": sorted(tensors)[::2]}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    weight_map = {name: file for file, names in parts.items() for name in names}
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture
def base(make_model: MakeModel) -> Path:
    return make_model("base")


@pytest.fixture
def models(make_model: MakeModel, base: Path, tmp_path: Path) -> list[Path]:
    """Fine-tunes in every storage: fp32, fp16, bf16, sharded, larger, and one with a negated task vector."""
    first = make_model("single", seed=1, base=base)
    return [
        first,
        make_model("half", seed=2, base=base, dtype=torch.float16),
        make_model("brain", seed=3, base=base, dtype=torch.bfloat16),
        shard(make_model("sharded", seed=4, base=base)),
        make_model("large", seed=5, base=base, size=2.0),
        negated(tmp_path / "negated", base, first),
    ]


@pytest.mark.parametrize("metric", ["pcc", "cosine", "euclidean"])
@pytest.mark.parametrize("base_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_matrix_agrees_with_float64(
    base: Path, models: list[Path], make_model: MakeModel, metric: str, base_dtype: torch.dtype
) -> None:
    start = make_model("start", dtype=base_dtype)  # the base in its own dtype
    matrix = kinship_matrix(models, start, metric)
    want = expected(metric, task_vectors(start, models))
    np.testing.assert_allclose(matrix.values, want, rtol=1e-6, atol=1e-6)
    if metric != "euclidean" and base_dtype == torch.float32:
        assert matrix[str(models[0]), str(models[-1])] == pytest.approx(-1.0, abs=1e-6)
        assert matrix.mean() < 0.1


@pytest.mark.parametrize("metric", ["pcc", "cosine", "euclidean"])
def test_matrix_does_not_depend_on_block_sizes(
    base: Path, models: list[Path], metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 777)
    monkeypatch.setattr(chunks, "MIN_CHUNK", 1)
    want = expected(metric, task_vectors(base, models))
    np.testing.assert_allclose(kinship_matrix(models, base, metric).values, want, rtol=1e-6, atol=1e-6)


def test_tensors_longer_than_one_block(make_model: MakeModel) -> None:
    shapes = {"wide.weight": (1030, 1031), "bias": (13,)}
    base = make_model("base", shapes=shapes)
    pair = [make_model(f"m{seed}", seed=seed, base=base, shapes=shapes) for seed in (1, 2)]
    want = task_vectors(base, pair)
    for metric in ("pcc", "euclidean"):
        np.testing.assert_allclose(
            kinship_matrix(pair, base, metric).values, expected(metric, want), rtol=1e-6, atol=1e-6
        )


def test_files_and_folders_may_be_mixed(base: Path, models: list[Path]) -> None:
    files = [models[0] / "model.safetensors", models[3]]
    matrix = kinship_matrix(files, base / "model.safetensors")
    assert matrix.ids == tuple(map(str, files))
    np.testing.assert_allclose(matrix.values, np.corrcoef(task_vectors(base, [models[0], models[3]])), atol=1e-6)


def test_matrix_carries_what_it_is_about(base: Path, models: list[Path]) -> None:
    matrix = kinship_matrix(models, base, "cosine")
    assert matrix.base == str(base)
    assert matrix.ids == tuple(map(str, models))
    assert matrix.metric == "cosine"
    assert (matrix.tensors, matrix.left_out) == (6, {})


def test_zero_task_vector_has_no_direction(base: Path, models: list[Path], tmp_path: Path) -> None:
    save_file(load(base), tmp_path / "twin.safetensors")
    twin = str(tmp_path / "twin.safetensors")
    for metric in ("pcc", "cosine"):
        matrix = kinship_matrix([models[0], twin, models[1]], base, metric)
        assert matrix.without_direction() == (twin,)
        assert np.isnan(matrix.values[1]).all()
        fields = json.loads(matrix.to_json())
        assert fields["values"][1] == [None] * 3
        assert fields["mean"] is None
    distance = kinship_matrix([models[0], twin], base, "euclidean")
    assert distance.without_direction() == ()
    assert distance.values[0, 1] == pytest.approx(np.linalg.norm(task_vectors(base, [models[0]])), rel=1e-6)


def test_constant_task_vector_has_no_correlation(base: Path, models: list[Path], tmp_path: Path) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in load(base).items()}
    save_file(zeros, tmp_path / "zeros.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in zeros.items()}, tmp_path / "raised.safetensors")
    matrix = kinship_matrix([tmp_path / "raised.safetensors", models[0]], tmp_path / "zeros.safetensors")
    assert matrix.without_direction() == (str(tmp_path / "raised.safetensors"),)


def test_equal_models_are_as_close_as_can_be(base: Path, models: list[Path], tmp_path: Path) -> None:
    save_file(load(models[0]), tmp_path / "copy.safetensors")
    pair = [models[0], tmp_path / "copy.safetensors"]
    assert kinship_matrix(pair, base, "pcc").values[0, 1] == pytest.approx(1.0, abs=1e-6)
    scale = float(np.linalg.norm(task_vectors(base, [models[0]])))
    assert kinship_matrix(pair, base, "euclidean").values[0, 1] <= 1e-6 * scale


def test_left_out_tensors_do_not_count(base: Path, models: list[Path], make_model: MakeModel, tmp_path: Path) -> None:
    grown = load(models[1]) | {"model.embed_tokens.weight": torch.randn(14, 8), "added.weight": torch.randn(3)}
    save_file(grown, tmp_path / "grown.safetensors")
    matrix = kinship_matrix([models[0], tmp_path / "grown.safetensors"], base)
    common = sorted(set(load(base)) - {"model.embed_tokens.weight"})
    flat = [
        np.concatenate([(tensors[name].double() - load(base)[name].double()).numpy().ravel() for name in common])
        for tensors in (load(models[0]), grown)
    ]
    np.testing.assert_allclose(matrix.values, np.corrcoef(np.stack(flat)), atol=1e-6)
    assert set(matrix.left_out) == {"model.embed_tokens.weight", "added.weight"}
    assert matrix.tensors == len(common)


def test_model_that_lacks_tensors_changes_what_is_compared(
    base: Path, models: list[Path], make_model: MakeModel
) -> None:
    smaller = make_model("smaller", shapes={name: shape for name, shape in SHAPES.items() if "norm" not in name})
    before, again, after = (
        kinship_matrix(chosen, base).compared for chosen in (models[:2], models, [*models, smaller])
    )
    assert before == again != after


def test_progress_counts_up_to_its_total(base: Path, models: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    kinship_matrix(models, base, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    want = sum(tensor.nbytes for folder in [base, *models] for tensor in load(folder).values())
    assert told[-1] == (want, want)


def test_models_may_come_one_by_one_and_one_is_no_list(base: Path, models: list[Path]) -> None:
    assert kinship_matrix(iter(models), base).ids == tuple(map(str, models))
    for ask in (kinship_matrix, preflight, recover, lambda models, base: recorded_tree(models)):
        for one in (str(models[0]), models[0]):
            with pytest.raises(InvalidConfig, match="is one model; a list"):
                ask(one, base)  # type: ignore[operator]
    with pytest.raises(InvalidConfig, match="at least one model"):
        recorded_tree([])


def test_the_same_model_twice_is_refused(base: Path, models: list[Path]) -> None:
    with pytest.raises(InvalidConfig, match=models[1].name):
        kinship_matrix([models[0], models[1], models[1]], base)


def test_unknown_metric_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="'angle'"):
        kinship_matrix([tmp_path / "nothing"], tmp_path / "nowhere", "angle")


def test_what_goes_wrong_with_one_model_names_it(base: Path, models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound, match="absent"):
        kinship_matrix([models[0], tmp_path / "absent"], base)
    broken = load(models[1])
    broken["model.norm.weight"][0] = float("nan")
    save_file(broken, models[1] / "model.safetensors")
    with pytest.raises(NonFiniteWeights, match=models[1].name):
        kinship_matrix(models, base)
    save_file({"stranger": torch.zeros(2)}, tmp_path / "stranger.safetensors")
    with pytest.raises(MismatchedModels, match="stranger"):
        kinship_matrix([models[0], tmp_path / "stranger.safetensors"], base)


def test_no_models_give_an_empty_matrix(base: Path) -> None:
    matrix = kinship_matrix([], base)
    assert isinstance(matrix, KinshipMatrix)
    assert matrix.values.shape == (0, 0)


# Metrics that read the weights for themselves


@pytest.mark.parametrize(("metric", "unrelated"), [("sign", 0.5), ("subspace", None)])
def test_signs_and_subspaces_are_compared_by_name(
    base: Path, models: list[Path], metric: str, unrelated: float | None
) -> None:
    told: list[tuple[int, int]] = []
    comparison = compare(models, base, metric, ComparisonOptions(rank=2), lambda *progress: told.append(progress))
    matrix = comparison.matrix(metric)
    assert (matrix.metric, matrix.ids) == (metric, tuple(map(str, models)))
    assert matrix.compared
    assert told[-1][0] == told[-1][1]
    np.testing.assert_array_equal(
        kinship_matrix(models, base, metric, options=ComparisonOptions(rank=2)).values, matrix.values
    )
    for group in comparison.by_group("layer", metric).values():
        assert group.values.shape == matrix.values.shape
    assert comparison.relative_norms() == {}
    if unrelated is not None:
        assert comparison.unrelated(metric) == unrelated
    else:
        assert 0 < (comparison.unrelated(metric) or 0) < 1
    with pytest.raises(InvalidConfig, match=f"made for {metric}, not pcc"):
        comparison.matrix("pcc")


def test_negated_task_vector_agrees_in_no_sign(make_model: MakeModel, base: Path, tmp_path: Path) -> None:
    model = make_model("model", 5, base)
    weights, start = load(model), load(base)
    (tmp_path / "mirrored").mkdir()
    save_file({name: 2 * start[name] - weights[name] for name in start}, tmp_path / "mirrored/model.safetensors")
    matrix = kinship_matrix([model, tmp_path / "mirrored"], base, "sign")
    assert matrix.mean() < 0.01  # rounding may turn the smallest
    assert np.diagonal(matrix.values).tolist() == [1.0, 1.0]
