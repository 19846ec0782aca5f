"""NuSLERP, multi-SLERP, the Karcher mean, Model Stock and passthrough against geometry in float64."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from kinship.errors import InvalidConfig
from merging.registry import get_method
from tests.merging.methods.kernels import Array, close, combined, filled, merged


@pytest.fixture
def vectors() -> Array:
    return np.random.default_rng(0).normal(size=(3, 12, 7)).astype(np.float32).astype(np.float64)


def arc(a: Array, b: Array, t: float) -> Array:
    angle = math.acos(float((a * b).sum()) / (np.linalg.norm(a) * np.linalg.norm(b)))
    return np.asarray((math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle))


def direction(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))


# NuSLERP


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize(
    ("weight", "t"), [([1, 3], 0.75), ([1, 0], 0.0), ([0, 2], 1.0), ([1, -1], 0.5), ([3, -1], -0.5)]
)
def test_nuslerp_follows_the_arc(vectors: Array, weight: list[float], t: float, has_base: bool) -> None:
    got = combined("nuslerp", vectors[:2], weight=weight, has_base=has_base)
    np.testing.assert_allclose(got, arc(vectors[0], vectors[1], t), atol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, -0.2])
def test_nuslerp_of_parallel_vectors_is_a_line(vectors: Array, factor: float) -> None:
    a, b = vectors[0], factor * vectors[0]
    np.testing.assert_allclose(combined("nuslerp", np.stack([a, b]), weight=[1, 3]), 0.25 * a + 0.75 * b, atol=1e-9)


def test_nuslerp_of_zero_vectors_is_zero_or_part_of_the_other(vectors: Array) -> None:
    zero = np.zeros_like(vectors[0])
    assert not combined("nuslerp", np.stack([zero, zero]), weight=[1, 1]).any()
    got = combined("nuslerp", np.stack([zero, vectors[0]]), weight=[1, 1])
    np.testing.assert_allclose(got, math.sin(math.pi / 4) * vectors[0])


@pytest.mark.parametrize("row_wise", [True, False])
@pytest.mark.parametrize("shape", [(12, 7), (1, 9), (9, 1), (4, 3, 5)])
def test_nuslerp_of_lines(shape: tuple[int, ...], row_wise: bool) -> None:
    a, b = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32).astype(np.float64)
    axis = 0 if row_wise else -1
    want = np.empty(shape)
    for x, y, line in zip(*(np.moveaxis(v, axis, -1).reshape(-1, shape[axis]) for v in (a, b)), np.ndindex(
        *np.moveaxis(a, axis, -1).shape[:-1]), strict=True):  # fmt: skip
        parallel = len(x) == 1
        np.moveaxis(want, axis, -1)[line] = 0.4 * x + 0.6 * y if parallel else arc(x, y, 0.6)
    got = merged("nuslerp", np.stack([a, b]), weight=[0.4, 0.6], nuslerp_flatten=False, nuslerp_row_wise=row_wise)
    close(got, want, units=16)


@pytest.mark.parametrize("row_wise", [True, False])
def test_nuslerp_of_a_vector_is_that_of_one_line(row_wise: bool) -> None:
    vectors = np.random.default_rng(2).normal(size=(2, 300))
    got = merged("nuslerp", vectors, weight=[1, 2], nuslerp_flatten=False, nuslerp_row_wise=row_wise)
    close(got, combined("nuslerp", vectors, weight=[1, 2]), units=8)


def test_nuslerp_leaves_the_span_only_when_it_is_not_flattened() -> None:
    method = get_method("nuslerp")
    assert method.in_span(filled("nuslerp"))
    assert not method.in_span(filled("nuslerp", nuslerp_flatten=False))


# Multi-SLERP


@pytest.mark.parametrize("weight", [[1, 1, 1], [0.5, 0.3, 0.4], [2.0, -0.5, 1.0]])
@pytest.mark.parametrize("normalize", [True, False])
def test_multislerp_projects_on_the_tangent_space_and_back(
    vectors: Array, weight: list[float], normalize: bool
) -> None:
    """The steps of the method written out; the tangent vectors turn out to balance."""
    weights = np.array(weight) / (sum(weight) if normalize else 1)
    norms = np.array([np.linalg.norm(v) for v in vectors])
    units = vectors / norms.reshape(3, 1, 1)
    mean = direction(np.tensordot(weights, units, 1))
    tangents = [unit - (unit * mean).sum() * mean for unit in units]
    step = np.tensordot(weights, tangents, 1)
    size = np.linalg.norm(step)
    back = math.cos(size) * mean + (math.sin(size) / size * step if size > 1e-12 else 0.0)
    got = combined("multislerp", vectors, weight=weight, normalize_weights=normalize)
    np.testing.assert_allclose(got, back * (weights * norms).sum(), atol=1e-7)


def test_multislerp_of_two_is_the_middle_of_the_arc(vectors: Array) -> None:
    a, b = (direction(v) for v in vectors[:2])
    np.testing.assert_allclose(combined("multislerp", np.stack([a, b]), weight=[1, 1]), arc(a, b, 0.5), atol=1e-7)


def test_multislerp_of_one_is_that_one(vectors: Array) -> None:
    np.testing.assert_array_equal(combined("multislerp", vectors[:1], weight=[0.3]), vectors[0])


def test_multislerp_of_two_that_balance_is_their_weighted_sum(vectors: Array) -> None:
    both = np.stack([vectors[0], -2 * vectors[0]])
    got = combined("multislerp", both, weight=[1, 1], has_base=True)
    np.testing.assert_allclose(got, -0.5 * vectors[0])
    assert not combined("multislerp", 0 * both, weight=[1, 1], has_base=True).any()


def test_multislerp_of_three_that_balance_is_refused(vectors: Array) -> None:
    a, b = direction(vectors[0]), direction(vectors[1])
    balanced = np.stack([a, b, direction(-(a + b)) * 5])
    weight = [1.0, 1.0, float(np.linalg.norm(a + b))]
    for inputs, has_base in ((balanced, False), (0 * balanced, True)):
        with pytest.raises(InvalidConfig, match="balance") as refusal:
            combined("multislerp", inputs, weight=weight, has_base=has_base)
        assert refusal.value.hint


def test_multislerp_weights_that_sum_to_zero_are_refused(vectors: Array) -> None:
    with pytest.raises(InvalidConfig, match="sum to zero"):
        combined("multislerp", vectors[:2], weight=[1, -1])
    assert combined("multislerp", vectors[:2], weight=[1, -1], normalize_weights=False).any()


# Karcher


def test_karcher_mean_has_the_least_squared_angles(vectors: Array) -> None:
    """Against a general minimiser, on coefficients of the three directions."""
    units = np.stack([direction(v).ravel() for v in vectors])

    def cost(coefficients: Array) -> float:
        return float((np.arccos(np.clip(units @ direction(coefficients @ units), -1, 1)) ** 2).sum())

    want = direction(minimize(cost, np.ones(3), tol=1e-14).x @ units)
    scaled = units * np.array([[1.0], [5.0], [0.3]])
    got = combined("karcher", scaled, max_iter=100, tol=1e-12)
    np.testing.assert_allclose(direction(got), want, atol=1e-6)
    assert np.linalg.norm(got) == pytest.approx(6.3 / 3)


def test_karcher_mean_of_two_is_the_middle_of_the_arc(vectors: Array) -> None:
    a, b = direction(vectors[0]), direction(vectors[1])
    np.testing.assert_allclose(combined("karcher", np.stack([a, b])), arc(a, b, 0.5), atol=1e-9)


def test_karcher_stops_when_told(vectors: Array) -> None:
    results = [combined("karcher", vectors, max_iter=steps, tol=1e-12) for steps in (0, 1, 2, 50, 60)]
    distances = [np.linalg.norm(result - results[-1]) for result in results]
    assert distances[0] > distances[1] > distances[2] > distances[3]
    assert distances[3] < 1e-9
    mean = direction(sum(direction(v) for v in vectors))
    np.testing.assert_allclose(direction(results[0]), mean, atol=1e-12)
    np.testing.assert_allclose(combined("karcher", vectors, tol=0.5), results[0])


def test_karcher_zero_inputs_count_in_the_length_alone(vectors: Array) -> None:
    zero = np.zeros_like(vectors[0])
    got = combined("karcher", np.stack([vectors[0], zero]))
    np.testing.assert_allclose(got, vectors[0] / 2)
    assert not combined("karcher", np.stack([zero, zero])).any()


def test_karcher_of_opposite_directions_is_the_first(vectors: Array) -> None:
    got = combined("karcher", np.stack([vectors[0], -3 * vectors[0]]))
    np.testing.assert_allclose(got, 2 * vectors[0])


@pytest.mark.parametrize("name", ["karcher", "multislerp"])
def test_order_of_models_does_not_matter(vectors: Array, name: str) -> None:
    weights = {} if name == "karcher" else {"weight": [0.2, 0.3, 0.5]}
    turned = {} if name == "karcher" else {"weight": [0.5, 0.3, 0.2]}
    np.testing.assert_allclose(combined(name, vectors, **weights), combined(name, vectors[::-1], **turned), atol=1e-9)


@pytest.mark.parametrize("name", ["karcher", "multislerp", "nuslerp"])
def test_equal_models_give_that_model_and_scale_goes_through(vectors: Array, name: str) -> None:
    weights = {} if name == "karcher" else {"weight": [0.2, 0.3]}
    same = np.stack([vectors[0], vectors[0]])
    np.testing.assert_allclose(combined(name, same, **weights), vectors[0], atol=1e-7)
    two = vectors[:2]
    np.testing.assert_allclose(combined(name, 8 * two, **weights), 8 * combined(name, two, **weights), atol=1e-6)


# Model Stock


def test_model_stock_is_the_point_nearest_to_the_centre() -> None:
    """The paper's geometry: for vectors of one length at one angle, (base to result) is perpendicular to the plane."""
    generator = np.random.default_rng(3)
    frame, _ = np.linalg.qr(generator.normal(size=(50, 4)))
    vectors = 0.8 * frame[:, :1].T + 0.6 * frame[:, 1:].T  # three of length 1, pairwise cosine 0.64
    got = combined("model_stock", vectors)
    mean = vectors.mean(axis=0)
    assert abs(float(got @ (vectors[0] - vectors[1]))) < 1e-12
    share = 3 * 0.64 / (1 + 2 * 0.64)
    np.testing.assert_allclose(got, share * mean, atol=1e-12)


def test_model_stock_of_equal_and_of_orthogonal_models(vectors: Array) -> None:
    np.testing.assert_allclose(combined("model_stock", np.stack([vectors[0]] * 3)), vectors[0])
    assert not combined("model_stock", np.eye(3)).any()


def test_model_stock_keeps_the_base_where_it_has_no_answer(vectors: Array) -> None:
    assert not combined("model_stock", np.stack([vectors[0], -vectors[0]])).any()
    assert not combined("model_stock", np.zeros((2, 5))).any()


def test_model_stock_of_rows(vectors: Array) -> None:
    want = np.stack([combined("model_stock", vectors[:, row]) for row in range(vectors.shape[1])])
    close(merged("model_stock", vectors, filter_wise=True), want, units=8)
    vector = vectors.reshape(3, -1)
    close(merged("model_stock", vector, filter_wise=True), combined("model_stock", vector), units=8)
    assert not get_method("model_stock").in_span({"filter_wise": True})


# Passthrough


def test_passthrough_is_the_model_scaled(vectors: Array) -> None:
    np.testing.assert_array_equal(combined("passthrough", vectors[:1], scale=[1.0]), vectors[0])
    np.testing.assert_array_equal(combined("passthrough", vectors[:1], scale=[-0.5]), -0.5 * vectors[0])
    assert get_method("passthrough").max_models == 1
