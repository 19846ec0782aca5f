"""Who was computed from whom, told from rounding: sums made here in the arithmetic that people use."""

import numpy as np
import pytest

from kinship.heritage.combinations import Combination
from kinship.heritage.grids import to_grid
from kinship.heritage.rounding import rounding
from kinship.heritage.sampling import Sample

NAMES = ("one", "two")
RECIPES = [(0.5, 0.5), (1.5, -0.5), (0.37, 0.63), (0.8, 0.2), (0.316241, 0.683759)]


def stored(values: np.ndarray, grid: str) -> np.ndarray:
    return values.astype(np.float32) if grid == "float32" else to_grid(values.astype(np.float32), grid)


def family(grid: str, weights: tuple[float, ...], size: float) -> list[Sample]:
    """Models 0, 1 (and 2) are steps of ``size`` from a common one, stored in ``grid``; the last is their sum."""
    random = np.random.default_rng(0)
    samples = []
    for name in NAMES:
        base = random.normal(size=(64, 96))
        parents = [
            stored(base * (1 + size * random.normal(size=base.shape)) + size * random.normal(size=base.shape), grid)
            for _ in weights
        ]
        if grid == "float32":  # products and sums in single precision, as merge tools have them
            child = sum(np.float32(w) * parent for w, parent in zip(weights, parents, strict=True))
        else:
            child = sum(w * parent.astype(np.float64) for w, parent in zip(weights, parents, strict=True))
        values = np.stack([*parents, stored(child, grid)])
        samples.append(Sample(name, tuple(range(len(values))), values))
    return samples


def nats(samples: list[Sample], grid: str, child: int) -> float:
    count = len(samples[0].owners)
    parents = tuple(model for model in range(count) if model != child)
    one = Combination(child, parents, np.zeros((2, count - 1)), np.array([True, True]), False, 0.0)
    told = rounding(one, samples, grid)
    assert told is not None
    return told.nats


@pytest.mark.parametrize("weights", [*RECIPES, (0.2, 0.5, 0.3), (0.7, 0.9, -0.6)])
@pytest.mark.parametrize("grid", ["float32", "bfloat16", "float16"])
def test_what_was_computed_has_the_shortest_description(grid: str, weights: tuple[float, ...]) -> None:
    samples = family(grid, weights, 0.1)
    lengths = [nats(samples, grid, child) for child in range(len(weights) + 1)]
    assert int(np.argmin(lengths)) == len(weights)


@pytest.mark.parametrize("size", [0.1, 0.01])
def test_coefficients_come_out_whole_in_spite_of_sixteen_bits(size: float) -> None:
    samples = family("bfloat16", (0.37, 0.63), size)
    one = Combination(2, (0, 1), np.zeros((2, 2)), np.array([True, True]), False, 0.0)
    told = rounding(one, samples, "bfloat16")
    assert told is not None
    assert told.coefficients == pytest.approx((0.37, 0.63), abs=1e-12)
    assert told.exact == 1.0


def test_a_lambda_multiplied_in_last_is_recomputed_to_the_last_bit() -> None:
    """Task arithmetic of large steps, 0.9 (0.9 a + 0.8 b + 0.7 c), as merge tools compute it."""
    random, samples = np.random.default_rng(0), []
    for name in NAMES:
        base = random.normal(size=(64, 96)).astype(np.float32)
        parents = [base + (0.3 * random.normal(size=base.shape)).astype(np.float32) for _ in range(3)]
        weighted = [np.float32(w) * (parent - base) for w, parent in zip((0.9, 0.8, 0.7), parents, strict=True)]
        child = base + np.float32(0.9) * (weighted[0] + weighted[1] + weighted[2])
        samples.append(Sample(name, (0, 1, 2, 3, 4), np.stack([*parents, base, child])))
    lengths = [nats(samples, "float32", child) for child in range(5)]
    assert int(np.argmin(lengths)) == 4
    one = Combination(4, (0, 1, 2, 3), np.zeros((2, 4)), np.array([True, True]), False, 0.0)
    told = rounding(one, samples, "float32")
    assert told is not None
    assert told.exact == 1.0
    assert told.coefficients == pytest.approx((0.81, 0.72, 0.63, -1.16), abs=1e-12)


def test_what_is_no_combination_is_not_explained() -> None:
    samples = family("bfloat16", (0.5, 0.5), 0.05)
    random = np.random.default_rng(1)
    for sample in samples:
        sample.values[2] = to_grid(
            sample.values[2] * (1 + 0.05 * random.normal(size=(64, 96))).astype(np.float32), "bfloat16"
        )
    one = Combination(2, (0, 1), np.zeros((2, 2)), np.array([True, True]), False, 0.0)
    told = rounding(one, samples, "bfloat16")
    assert told is not None
    assert told.explained < 0.8


def test_models_that_are_the_same_tell_nothing() -> None:
    values = np.ones((3, 8, 96), dtype=np.float32)
    one = Combination(2, (0, 1), np.zeros((1, 2)), np.array([True]), False, 0.0)
    assert rounding(one, [Sample("one", (0, 1, 2), values)], "float32") is None
