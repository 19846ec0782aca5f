"""Each kernel gives coefficients; here they are applied to tensors and compared with the merge written out."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinship.errors import InvalidConfig
from merging.registry import get_method, methods

Array = np.ndarray


def merge(method: str, models: list[Array], base: Array | None = None, **values: Any) -> Array:
    """The merged tensor, in float64."""
    flat = np.stack([model.ravel() for model in models])
    combination = get_method(method).coefficients(flat @ flat.T, values, has_base=True)
    assert len(combination.models) == len(models)
    result = sum(factor * model for factor, model in zip(combination.models, models, strict=True))
    if combination.base != 0.0:
        assert base is not None
        result = result + combination.base * base
    return np.asarray(result)


@pytest.fixture
def tensors() -> list[Array]:
    """A base and three models, far apart."""
    return list(np.random.default_rng(0).normal(size=(4, 6, 5)))


WEIGHTS = [0.2, 1.3, 0.7]


# Linear


def test_linear_is_the_weighted_mean(tensors: list[Array]) -> None:
    _, a, b, c = tensors
    want = (0.2 * a + 1.3 * b + 0.7 * c) / 2.2
    np.testing.assert_allclose(merge("linear", [a, b, c], weight=WEIGHTS), want)


def test_linear_without_normalisation_is_the_weighted_sum(tensors: list[Array]) -> None:
    _, a, b, c = tensors
    got = merge("linear", [a, b, c], weight=WEIGHTS, normalize=False)
    np.testing.assert_allclose(got, 0.2 * a + 1.3 * b + 0.7 * c)


def test_linear_takes_negative_weights(tensors: list[Array]) -> None:
    _, a, b, _ = tensors
    np.testing.assert_allclose(merge("linear", [a, b], weight=[1.5, -0.5]), 1.5 * a - 0.5 * b)


def test_linear_scale_stretches_the_task_vector_of_the_mean(tensors: list[Array]) -> None:
    base, a, b, _ = tensors
    mean = (3 * a + b) / 4
    got = merge("linear", [a, b], base, weight=[3, 1], scale=1.8)
    np.testing.assert_allclose(got, base + 1.8 * (mean - base))
    np.testing.assert_allclose(merge("linear", [a, b], base, weight=[3, 1], scale=0.0), base)


def test_linear_scale_is_task_arithmetic_normalised(tensors: list[Array]) -> None:
    base, *models = tensors
    got = merge("linear", models, base, weight=WEIGHTS, scale=0.6)
    want = merge("task_arithmetic", models, base, weight=WEIGHTS, normalize=True, **{"lambda": 0.6})
    np.testing.assert_allclose(got, want)


@pytest.mark.parametrize("weight", [[1, -1], [0, 0], [0.1, 0.2, -0.3]])
def test_linear_weights_that_sum_to_zero_are_refused(weight: list[float]) -> None:
    with pytest.raises(InvalidConfig, match="sum to zero"):
        get_method("linear").coefficients(None, {"weight": weight}, has_base=True)


def test_linear_scale_without_normalisation_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="normalize"):
        get_method("linear").coefficients(None, {"weight": [1, 1], "normalize": False, "scale": 2.0}, has_base=True)


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.integers(0, 99)), min_size=1, max_size=5), st.randoms(), st.floats(0, 3)
)
@settings(deadline=None, max_examples=50)
def test_linear_does_not_depend_on_the_order_of_models(
    parts: list[tuple[float, int]], random: Any, scale: float
) -> None:
    base = np.random.default_rng(100).normal(size=8)

    def merged() -> Array:
        models = [np.random.default_rng(seed).normal(size=8) for _, seed in parts]
        return merge("linear", models, base, weight=[weight for weight, _ in parts], scale=scale)

    want = merged()
    random.shuffle(parts)
    np.testing.assert_allclose(merged(), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("linear", {"weight": [0.3, 2.0]}),
        ("linear", {"weight": [0.3, 2.0], "scale": 1.0}),
        ("slerp", {"t": 0.37}),
        ("task_arithmetic", {"weight": [0.25, 0.75]}),
        ("task_arithmetic", {"weight": [3.0, 5.0], "normalize": True}),
    ],
)
def test_equal_models_are_left_as_they_are(tensors: list[Array], method: str, values: dict[str, Any]) -> None:
    base, a, *_ = tensors
    np.testing.assert_allclose(merge(method, [a, a], base, **values), a)


# Task arithmetic


def test_task_arithmetic_adds_weighted_differences(tensors: list[Array]) -> None:
    base, a, b, c = tensors
    want = base + 0.2 * (a - base) + 1.3 * (b - base) + 0.7 * (c - base)
    np.testing.assert_allclose(merge("task_arithmetic", [a, b, c], base, weight=WEIGHTS), want)


def test_task_arithmetic_lambda_and_normalize(tensors: list[Array]) -> None:
    base, a, b, c = tensors
    want = base + 0.4 * (0.2 * (a - base) + 1.3 * (b - base) + 0.7 * (c - base)) / 2.2
    got = merge("task_arithmetic", [a, b, c], base, weight=WEIGHTS, normalize=True, **{"lambda": 0.4})
    np.testing.assert_allclose(got, want)


def test_task_arithmetic_divisor_of_zero_counts_as_one(tensors: list[Array]) -> None:
    base, a, b, _ = tensors
    got = merge("task_arithmetic", [a, b], base, weight=[1.5, -1.5], normalize=True)
    np.testing.assert_allclose(got, base + 1.5 * (a - base) - 1.5 * (b - base))


def test_task_arithmetic_negation_forgets(tensors: list[Array]) -> None:
    base, a, *_ = tensors
    np.testing.assert_allclose(merge("task_arithmetic", [a], base, weight=[-1]), 2 * base - a)


# SLERP


def arc(a: Array, b: Array, t: float) -> Array:
    angle = math.acos(float((a * b).sum()) / (np.linalg.norm(a) * np.linalg.norm(b)))
    return np.asarray((math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle))


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.93, 1.0, -0.4, 1.7])
def test_slerp_follows_the_arc(tensors: list[Array], t: float) -> None:
    _, a, b, _ = tensors
    np.testing.assert_allclose(merge("slerp", [a, 3 * b], t=t), arc(a, 3 * b, t), atol=1e-12)


@pytest.mark.parametrize("closeness", [0.0, 0.9, 0.99, 1.0])
def test_slerp_ends_are_the_models(tensors: list[Array], closeness: float) -> None:
    _, a, b, _ = tensors
    b = closeness * a + (1 - closeness) * b
    np.testing.assert_allclose(merge("slerp", [a, b], t=0.0), a, atol=1e-12)
    np.testing.assert_allclose(merge("slerp", [a, b], t=1.0), b, atol=1e-12)


def at_cosine(cosine: float) -> tuple[Array, Array]:
    """Two vectors of different lengths, as wide apart as ``cosine``."""
    return np.array([2.0, 0.0]), 0.7 * np.array([cosine, math.sqrt(1 - cosine**2)])


@pytest.mark.parametrize("cosine", [0.99951, 0.9999999, 1.0, -0.99951, -1.0])
def test_slerp_of_nearly_parallel_models_is_a_line(cosine: float) -> None:
    a, b = at_cosine(cosine)
    np.testing.assert_allclose(merge("slerp", [a, b], t=0.3), 0.7 * a + 0.3 * b, rtol=1e-12)


@pytest.mark.parametrize("cosine", [0.99949, 0.5, 0.0, -0.99949])
def test_slerp_of_other_models_is_an_arc(cosine: float) -> None:
    a, b = at_cosine(cosine)
    got = merge("slerp", [a, b], t=0.3)
    np.testing.assert_allclose(got, arc(a, b, 0.3), rtol=1e-9)
    assert np.abs(got - (0.7 * a + 0.3 * b)).max() > 1e-5


def test_slerp_of_a_zero_tensor_counts_it_as_orthogonal(tensors: list[Array]) -> None:
    """Norms up to 1e-8 count as 1 and the cosine is then 0, as in mergekit."""
    zero, a = np.zeros((6, 5)), tensors[1]
    np.testing.assert_allclose(merge("slerp", [zero, a], t=0.3), math.sin(0.3 * math.pi / 2) * a)
    np.testing.assert_allclose(merge("slerp", [zero, zero], t=0.3), zero)


def test_slerp_between_unit_vectors_stays_on_the_sphere(tensors: list[Array]) -> None:
    a, b = (tensor / np.linalg.norm(tensor) for tensor in tensors[1:3])
    for t in (0.2, 0.5, 0.8):
        assert np.linalg.norm(merge("slerp", [a, b], t=t)) == pytest.approx(1.0)


@given(seed=st.integers(0, 1000), t=st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_slerp_read_backwards_is_the_same(seed: int, t: float) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 7))
    np.testing.assert_allclose(merge("slerp", [a, b], t=t), merge("slerp", [b, a], t=1 - t), atol=1e-9)


# The registry


def test_unknown_method_is_refused_naming_the_nearest_or_all() -> None:
    with pytest.raises(InvalidConfig, match="'liner'") as refusal:
        get_method("liner")
    assert refusal.value.hint == "Did you mean 'linear'?"
    with pytest.raises(InvalidConfig, match="'xyz'") as refusal:
        get_method("xyz")
    for name in ("linear", "slerp", "task_arithmetic"):
        assert name in refusal.value.hint


def test_every_method_is_registered_under_its_name() -> None:
    assert {"linear", "slerp", "task_arithmetic"} <= methods().keys()
    for name, method in methods().items():
        assert method.name == name
        assert all(method.parameter(parameter.name) is parameter for parameter in method.parameters)
