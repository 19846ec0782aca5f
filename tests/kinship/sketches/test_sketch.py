"""Sketches keep inner products and distances, whatever they were made by."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import NonFiniteWeights, UnsupportedCheckpoint
from kinship.sketches.sketch import BLOCK, LEAST_ELEMENTS, WIDTH, Key, fold_chunk, sketch

Open = Callable[..., Checkpoint]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def write(name: str = "model", **tensors: torch.Tensor) -> Checkpoint:
        save_file(tensors, tmp_path / f"{name}.safetensors")
        return open_checkpoint(tmp_path / f"{name}.safetensors")

    return write


def numbers(seed: int, count: int = 5000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def test_the_map_is_linear() -> None:
    one, two = numbers(0).numpy(), numbers(1).numpy()
    mixed = fold_chunk(0.25 * one - 2 * two, 0, "w").sums
    np.testing.assert_allclose(mixed, 0.25 * fold_chunk(one, 0, "w").sums - 2 * fold_chunk(two, 0, "w").sums, atol=1e-3)


def test_chunks_add_up_to_the_whole() -> None:
    whole = numbers(0).numpy()
    parts = [fold_chunk(whole[start : start + 10 * BLOCK], start, "w").sums for start in range(0, 5000, 10 * BLOCK)]
    np.testing.assert_allclose(np.sum(parts, axis=0), fold_chunk(whole, 0, "w").sums, atol=1e-3)


def test_each_element_goes_to_one_sum_with_a_sign() -> None:
    for element in (0, 1, 31, 32, 63, 64, 4999):
        unit = np.zeros(5000, dtype=np.float32)
        unit[element] = 3.0
        sums = fold_chunk(unit, 0, "w").sums
        assert sorted(np.abs(sums))[-2:] == [0.0, 3.0]


def test_estimates_are_unbiased_and_as_sharp_as_promised() -> None:
    products, gaps, trials = [], [], 600
    for trial in range(trials):
        one, noise = numbers(2 * trial, 2048).numpy(), numbers(2 * trial + 1, 2048).numpy()
        two = 0.6 * one + 0.8 * noise
        a, b = fold_chunk(one, 0, f"w{trial}"), fold_chunk(two, 0, f"w{trial}")
        products.append(a.sums @ b.sums / np.sqrt(a.square * b.square) - one @ two / np.sqrt(a.square * b.square))
        gap = float(np.sum((one.astype(np.float64) - two) ** 2))
        gaps.append(np.sum((a.sums - b.sums) ** 2) / gap - 1)
    # A product's variance is (1 + r^2) / WIDTH with r = 0.6; a squared distance's 2 / WIDTH. Means within 4 s.e.
    for found, spread in ((products, np.sqrt(1.36 / WIDTH)), (gaps, np.sqrt(2 / WIDTH))):
        assert abs(np.mean(found)) < 4 * spread / np.sqrt(trials)
        assert np.std(found) == pytest.approx(spread, rel=0.15)


def test_a_column_that_outweighs_the_rest_does_not_spoil_the_estimate() -> None:
    estimates = []
    for trial in range(300):
        one, two = (numbers(seed, 128 * 64).numpy().reshape(128, 64) for seed in (2 * trial, 2 * trial + 1))
        one[:, 7] *= 10
        two[:, 7] *= 10
        a, b = (fold_chunk(matrix.reshape(-1), 0, f"w{trial}") for matrix in (one, two))
        estimates.append(a.sums @ b.sums / np.sqrt(a.square * b.square))
    assert np.std(estimates) < 1.35 / np.sqrt(WIDTH)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_checkpoint(opened: Open, monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    monkeypatch.setenv("KINSHIP_THREADS", threads)
    long = numbers(0, 3 << 20)  # more than one chunk
    model = opened(b=numbers(1).reshape(50, 100), a=long.bfloat16())
    told: list[int] = []
    found = sketch(model, told.append)
    assert found.keys == (Key("a", 3 << 20), Key("b", 5000))
    expected = fold_chunk(long.bfloat16().float().numpy(), 0, "a")
    np.testing.assert_allclose(found.sums[0], expected.sums, rtol=1e-4, atol=0.1)
    assert found.squares[1] == pytest.approx(float(numbers(1).double().square().sum()), rel=1e-6)
    assert sum(told) == model.tensors["a"].nbytes + model.tensors["b"].nbytes
    monkeypatch.setenv("KINSHIP_THREADS", "2")
    assert sketch(model).sums.tobytes() == found.sums.tobytes()


def test_what_says_nothing_of_descent_is_left_out(opened: Open) -> None:
    model = opened(
        weight=numbers(0),
        norm=1 + 0.1 * numbers(1),
        small=numbers(2, LEAST_ELEMENTS - 1),
        buffer=torch.arange(5000),
    )
    assert [key.name for key in sketch(model).keys] == ["weight"]
    with pytest.raises(UnsupportedCheckpoint, match="no weights to sketch"):
        sketch(opened("bare", norm=torch.ones(5000)))


def test_damaged_weights_are_named(opened: Open) -> None:
    bad = numbers(0)
    bad[4321] = torch.nan
    with pytest.raises(NonFiniteWeights, match="'weight'"):
        sketch(opened(weight=bad, other=numbers(1)))
