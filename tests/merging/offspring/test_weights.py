from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import BY_NAME
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import MismatchedModels, NonFiniteWeights
from merging.offspring.span import Genome
from merging.offspring.weights import TensorStream, cast, common_dtype, materialise, materialise_into
from merging.planning.graph import Spec

Tensors = dict[str, torch.Tensor]


def model(folder: Path, id: str, tensors: Tensors) -> Checkpoint:
    save_file(tensors, folder / f"{id}.safetensors")
    return open_checkpoint(folder / f"{id}.safetensors", id=id)


def genome(*rows: list[float]) -> Genome:
    return Genome(np.array(rows))


def test_a_founder_comes_back_bit_for_bit(tmp_path: Path) -> None:
    weights = {"w": torch.randn(50, generator=torch.Generator().manual_seed(0))}
    models = [model(tmp_path, "base", {"w": torch.zeros(50)}), model(tmp_path, "one", weights)]
    ((name, tensor),) = materialise(genome([0.0, 1.0]), ["w"], models)
    assert name == "w"
    assert torch.equal(tensor, weights["w"])


def test_every_tensor_has_coefficients_of_its_own(tmp_path: Path) -> None:
    models = [
        model(tmp_path, id, {"a": torch.full((2,), x), "b": torch.full((1, 1), -x)})
        for id, x in [("m", 1.0), ("n", 4.0)]
    ]
    made = dict(materialise(genome([0.5, 0.25], [2.0, 0.0]), ["a", "b"], models))
    assert made["a"].tolist() == [1.5, 1.5]
    assert made["b"].tolist() == [[-2.0]]


def test_founders_without_a_share_are_not_read(tmp_path: Path) -> None:
    models = [model(tmp_path, id, {"w": torch.ones(2)}) for id in ("used", "unused")]
    (tmp_path / "unused.safetensors").unlink()
    ((_, tensor),) = materialise(genome([3.0, 0.0]), ["w"], models)
    assert tensor.tolist() == [3.0, 3.0]


def test_a_tensor_with_no_share_of_anyone_is_zero(tmp_path: Path) -> None:
    ((_, tensor),) = materialise(genome([0.0]), ["w"], [model(tmp_path, "m", {"w": torch.ones(2, 2)})])
    assert torch.equal(tensor, torch.zeros(2, 2))


def test_integer_buffers_are_copied(tmp_path: Path) -> None:
    ids = torch.arange(2**40, 2**40 + 3)
    models = [model(tmp_path, id, {"ids": ids}) for id in ("m", "n")]
    ((_, tensor),) = materialise(genome([0.3, 0.3]), ["ids"], models)
    assert tensor.dtype == torch.int64
    assert torch.equal(tensor, ids)


def test_integer_buffers_that_differ_are_refused(tmp_path: Path) -> None:
    models = [model(tmp_path, id, {"ids": torch.tensor([1, last])}) for id, last in [("m", 2), ("n", 3)]]
    with pytest.raises(MismatchedModels, match="'ids'"):
        list(materialise(genome([0.5, 0.5]), ["ids"], models))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_results_are_refused_by_name(tmp_path: Path, bad: float) -> None:
    broken = model(tmp_path, "m", {"good": torch.ones(2), "worse": torch.tensor([1.0, bad])})
    made = materialise(genome([1.0], [1.0]), ["good", "worse"], [broken])
    assert next(made)[0] == "good"
    with pytest.raises(NonFiniteWeights, match="'worse'"):
        next(made)


@pytest.mark.parametrize(
    ("one", "other", "want"),
    [
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float8_e4m3fn, torch.float8_e4m3fn, torch.float8_e4m3fn),
        (torch.float8_e4m3fn, torch.bfloat16, torch.bfloat16),
        (torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16),
    ],
)
def test_common_dtype_is_what_the_inputs_promote_to(
    tmp_path: Path, one: torch.dtype, other: torch.dtype, want: torch.dtype
) -> None:
    models = [model(tmp_path, id, {"w": torch.ones(2).to(dtype)}) for id, dtype in [("m", one), ("n", other)]]
    assert common_dtype("w", models) == want
    assert common_dtype("w", models[::-1]) == want


def made(**tensors: torch.Tensor) -> TensorStream:
    specs = [
        Spec(name, BY_NAME[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    return TensorStream(specs, iter(tensors.items()))


def test_cast_rounds_to_nearest_even_and_spares_integers() -> None:
    halfway = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20])  # bf16 steps by 2^-7 here
    got = dict(cast(made(w=halfway, ids=torch.tensor([300])), lambda name: torch.bfloat16))
    assert got["w"].tolist() == [1.0, 1 + 2**-6, 1 + 2**-7]
    assert got["ids"].dtype == torch.int64


def test_cast_asks_for_the_dtype_of_each_tensor() -> None:
    dtypes = {"a": torch.float16, "b": torch.float32}
    got = dict(cast(made(a=torch.ones(1), b=torch.ones(1)), dtypes.__getitem__))
    assert {name: tensor.dtype for name, tensor in got.items()} == dtypes


def test_cast_refuses_what_the_dtype_cannot_hold() -> None:
    with pytest.raises(NonFiniteWeights, match="'w'"):
        list(cast(made(w=torch.tensor([1.0, 7e4])), lambda name: torch.float16))


def test_cast_knows_what_it_will_give() -> None:
    stream = cast(made(w=torch.ones(2, 3), ids=torch.tensor([300])), lambda name: torch.bfloat16)
    specs = {spec.name: spec for spec in stream.specs}
    for name, tensor in stream:
        assert (specs[name].dtype.torch, specs[name].shape) == (tensor.dtype, tuple(tensor.shape))
    with pytest.raises(TypeError):
        cast(iter([("w", torch.ones(1))]), lambda name: torch.bfloat16)


# Straight into memory


@pytest.fixture
def founders(tmp_path: Path) -> list[Checkpoint]:
    """Two models of several chunks a tensor, one in bf16."""
    generator = torch.Generator().manual_seed(0)
    return [
        model(
            tmp_path,
            id,
            {
                "big": torch.randn(1300, 1000, generator=generator).to(dtype),
                "ids": torch.arange(5),
                "none": torch.empty(0, 3, dtype=dtype),
                "scalar": torch.tensor(float(len(id)), dtype=dtype),
            },
        )
        for id, dtype in [("m", torch.bfloat16), ("nn", torch.float32)]
    ]


TABLE = [[0.25, 0.5], [1.0, 0.0], [0.5, 0.5], [0.5, 0.25]]


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_live_memory_gets_the_sum_rounded_once(
    founders: list[Checkpoint], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, threads: str
) -> None:
    monkeypatch.setenv("KINSHIP_THREADS", threads)
    names = list(founders[0].tensors)
    places = {
        name: torch.full(entry.shape, -1, dtype=dtype if entry.dtype.is_floating_point else torch.int64)
        for name, entry in founders[0].tensors.items()
    }
    materialise_into(genome(*TABLE), names, founders, places)
    weights = [{name: founder.tensor(name).double() for name in names} for founder in founders]
    assert places["ids"].tolist() == list(range(5))
    assert places["scalar"].item() == 0.5 * 1 + 0.25 * 2
    want = 0.25 * weights[0]["big"] + 0.5 * weights[1]["big"]
    step = torch.finfo(dtype).eps * want.abs().clamp(min=1e-3)
    assert bool(((places["big"].double() - want).abs() <= 0.501 * step + 3e-7).all())
    for name, tensor in materialise(genome(*TABLE), names, founders, dtype):
        assert torch.equal(tensor, places[name]), name


def test_places_must_fit(founders: list[Checkpoint]) -> None:
    names = list(founders[0].tensors)
    with pytest.raises(MismatchedModels, match="'big'"):
        materialise_into(genome(*TABLE), names, founders, {"big": torch.empty(3)})
    with pytest.raises(MismatchedModels, match="'big'"):
        materialise_into(genome(*TABLE), names, founders, {})
