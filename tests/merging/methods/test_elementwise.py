"""NearSwap, Arcee Fusion and RAM against their definitions in float64, and order statistics against sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from merging.kernels.divergence import divergences
from merging.kernels.magnitude import NONE, cuts, key, magnitude
from tests.merging.methods.kernels import Array, close, merged


@pytest.fixture
def pair() -> Array:
    a, noise = np.random.default_rng(0).normal(size=(2, 60, 70))
    return np.stack([a, a + 0.1 * noise**3]).astype(np.float32).astype(np.float64)


# NearSwap


@pytest.mark.parametrize("t", [0.0, 1e-7, 0.003, 10.0])
def test_nearswap_moves_by_t_at_most(pair: Array, t: float) -> None:
    base, other = pair
    want = base + np.clip(other - base, -t, t)
    close(merged("nearswap", pair, t=t), want)


def test_nearswap_counts_distances_as_a_millionth_at_least() -> None:
    pair = np.array([[0.0], [5e-7]])
    np.testing.assert_allclose(merged("nearswap", pair, t=1e-7), [0.1 * 5e-7], rtol=1e-5)


def test_nearswap_far_enough_is_the_model_itself(pair: Array) -> None:
    np.testing.assert_array_equal(merged("nearswap", pair, t=1e6), pair[1])
    np.testing.assert_array_equal(merged("nearswap", pair, t=0.0), pair[0])


# Arcee Fusion


def scores(base: Array, other: Array) -> Array:
    new, old = log_softmax(other, axis=-1), log_softmax(base, axis=-1)
    return np.asarray(np.abs(other - base) * (np.exp(new) * (new - old)).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("shape", [(60, 70), (4200,), (2, 30, 70), (7, 1500)])
def test_fusion_takes_what_stands_out(pair: Array, shape: tuple[int, ...]) -> None:
    base, other = (tensor.ravel()[: np.prod(shape)].copy() for tensor in np.resize(pair, (2, 11_000)))
    base, other = base.reshape(shape), other.reshape(shape)
    score = scores(base, other)
    lower, median, upper = (np.sort(score.ravel())[int(q * (score.size - 1))] for q in (0.25, 0.5, 0.75))
    threshold = median + 1.5 * (upper - lower)
    got = merged("arcee_fusion", np.stack([base, other]))
    sure = np.abs(score - threshold) > 1e-5 * threshold
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(got[sure], np.where(score >= threshold, other, base)[sure])
    assert 0.01 < (got != base).mean() < 0.3


def test_fusion_with_oneself_changes_nothing(pair: Array) -> None:
    np.testing.assert_array_equal(merged("arcee_fusion", pair[[0, 0]]), pair[0])


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_fusion_of_a_few_elements(size: int) -> None:
    pair = np.random.default_rng(size).normal(size=(2, size)).astype(np.float32).astype(np.float64)
    score = np.sort(scores(*pair))
    lower, median, upper = (score[int(q * (size - 1))] for q in (0.25, 0.5, 0.75))
    taken = scores(*pair) >= (median + 1.5 * (upper - lower)) * (1 - 1e-6)
    np.testing.assert_array_equal(merged("arcee_fusion", pair), np.where(taken, pair[1], pair[0]))


@pytest.mark.parametrize("distance", [3.0, 0.1, 1e-4, 1e-6])
@pytest.mark.parametrize("width", [1, 5, 1024, 3000])
def test_divergence_has_digits_for_close_rows_too(distance: float, width: int) -> None:
    generator = np.random.default_rng(width)
    old = generator.normal(size=(3, width)).astype(np.float32)
    new = (old + distance * generator.normal(size=(3, width))).astype(np.float32)
    one, other = new.astype(np.longdouble), old.astype(np.longdouble)
    logs = [rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)) for rows in (one, other)]
    want = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1)
    import torch

    got = divergences(torch.from_numpy(new), torch.from_numpy(old))
    np.testing.assert_allclose(got, want.astype(np.float64), rtol=1e-3 if distance < 1e-5 else 1e-6, atol=1e-15)


def test_divergence_of_large_numbers_is_finite() -> None:
    import torch

    rows = torch.tensor([[1e4, -1e4, 0.0], [3e38, 0.0, 1.0]])
    assert np.isfinite(divergences(rows, -rows)).all()


# RAM


def ram(vectors: Array, epsilon: float, r: float = 0.0, alpha: float = 0.0) -> Array:
    changed = np.abs(vectors) > np.float32(epsilon)
    users = changed.sum(axis=0)
    result = np.zeros(vectors.shape[1:])
    for vector, mine in zip(vectors, changed, strict=True):
        unique, shared = mine & (users == 1), mine & (users > 1)
        gain = 1 + r * min(max(shared.sum() / max(unique.sum(), 1), 0), alpha)
        result += unique * gain * vector + shared * vector / np.maximum(users, 1)
    return result


@pytest.fixture
def sparse() -> Array:
    generator = np.random.default_rng(4)
    vectors = generator.normal(size=(4, 50, 130)) * (
        generator.random((4, 50, 130)) < [[[0.1]], [[0.3]], [[0.5]], [[0]]]
    )
    return vectors.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.5])
def test_ram_is_the_papers(sparse: Array, epsilon: float) -> None:
    close(merged("ram", sparse, epsilon=epsilon), ram(sparse, epsilon))
    got = merged("ramplus_tl", sparse, epsilon=epsilon, r=0.7, alpha=0.9)
    close(got, ram(sparse, epsilon, 0.7, 0.9))
    assert np.abs(got - ram(sparse, epsilon)).max() > 0.1


def test_ram_of_models_apart_is_their_sum_and_of_equal_ones_each() -> None:
    apart = np.kron(np.eye(3), np.arange(1.0, 9.0))
    np.testing.assert_array_equal(merged("ram", apart), apart.sum(axis=0))
    close(merged("ram", np.stack([apart[0]] * 3)), apart[0])


@pytest.mark.parametrize("name", ["ram", "ramplus_tl"])
def test_ram_does_not_depend_on_the_order_of_models(sparse: Array, name: str) -> None:
    close(merged(name, sparse[::-1]), merged(name, sparse))


# Order statistics


@given(st.integers(0, 10**6), st.integers(1, 300), st.sampled_from(["normal", "few", "zeros", "wide"]), st.floats(0, 1))
@settings(deadline=None, max_examples=150)
def test_cuts_are_those_of_a_stable_sort(seed: int, size: int, kind: str, share: float) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=size)
    if kind == "few":
        values = np.round(values)
    elif kind == "zeros":
        values *= generator.random(size) < 0.2
    elif kind == "wide":
        values = np.exp(80 * values)
    with np.errstate(over="ignore", under="ignore"):
        numbers = values.astype(np.float32)  # with infinities and subnormal numbers
    order = np.argsort(-np.abs(numbers), kind="stable")
    counts = [0, int(share * size), size]
    keys = np.array([key(numbers, index) for index in range(size)])
    for count, cut in zip(counts, cuts(numbers, counts), strict=True):
        assert set(np.flatnonzero(keys >= cut)) == set(order[:count])
        assert cut == NONE if count == 0 else magnitude(cut) == abs(numbers[order[count - 1]])


def test_cuts_in_a_large_tensor_of_two_values() -> None:
    numbers = np.zeros(100_000, dtype=np.float32)
    numbers[1::2] = -1.0
    below, at, above = cuts(numbers, [49_999, 50_000, 50_001])
    assert below == key(numbers, 99_997)
    assert key(numbers, 0) < at <= key(numbers, 99_999)
    assert above == key(numbers, 0)
