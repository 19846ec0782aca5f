"""TIES, DARE, DELLA, Breadcrumbs and SCE against the papers' equations written out in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinship.errors import InvalidConfig
from merging.registry import get_method
from tests.merging.methods.kernels import Array, close, filled, merged

WEIGHT = [0.5, 0.8, 0.3]
DENSITY = [0.2, 0.5, 0.9]
ELECTING = ["ties", "dare_ties", "della", "breadcrumbs_ties"]
LINEAR = ["dare_linear", "della_linear", "breadcrumbs"]


@pytest.fixture
def vectors() -> Array:
    """Three task vectors, of values that fp32 holds."""
    return fp32(np.random.default_rng(0).normal(size=(3, 30, 170)))


def fp32(values: Array) -> Array:
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def middle(vector: Array, skip: int, count: int) -> Array:
    """``vector`` without its ``skip`` largest elements and those after the ``count`` next; stable among equals."""
    order = np.argsort(-np.abs(vector).ravel(), kind="stable")[skip : skip + count]
    kept = np.zeros(vector.size)
    kept[order] = vector.ravel()[order]
    return kept.reshape(vector.shape)


def total(
    vectors: Array,
    weight: list[float],
    *,
    elect: bool,
    normalize: bool = False,
    rescaled: Array | None = None,
    scale: float = 1.0,
) -> Array:
    """Sum of trimmed vectors as the TIES paper has it, with weights."""
    if rescaled is not None:
        before, after = (np.abs(part).reshape(len(part), -1).sum(axis=1) for part in (rescaled, vectors))
        vectors = vectors * (before / after).reshape(-1, *[1] * (vectors.ndim - 1))
    weights = np.array(weight).reshape(-1, *[1] * (vectors.ndim - 1))
    terms = weights * vectors
    agree = np.ones(vectors.shape, dtype=bool)
    if elect:
        agree = np.sign(terms) == np.where(terms.sum(axis=0) >= 0, 1.0, -1.0)
    divisor = (weights * agree).sum(axis=0) if normalize else np.ones(vectors.shape[1:])
    return np.asarray(scale * (terms * agree).sum(axis=0) / np.where(np.abs(divisor) < 1e-8, 1.0, divisor))


# TIES


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("scale", [1.0, -0.7])
def test_ties_is_the_papers(vectors: Array, normalize: bool, rescale: bool, scale: float) -> None:
    got = merged(
        "ties", vectors, weight=WEIGHT, density=DENSITY, normalize=normalize, rescale=rescale, **{"lambda": scale}
    )
    trimmed = np.stack([middle(v, 0, int(d * v.size)) for v, d in zip(vectors, DENSITY, strict=True)])
    before = vectors if rescale else None
    close(got, total(trimmed, WEIGHT, elect=True, normalize=normalize, rescaled=before, scale=scale))


def test_ties_keeps_one_element_at_least_and_none_at_density_zero(vectors: Array) -> None:
    got = merged("ties", vectors[:1], weight=1.0, density=1e-9)
    close(got, middle(vectors[0], 0, 1))
    assert np.count_nonzero(got) == 1
    assert not merged("ties", vectors, weight=WEIGHT, density=0.0).any()


def test_ties_at_the_threshold_go_to_the_lowest_index() -> None:
    vector = np.array([[1.0, -2.0, 2.0, -2.0, 0.0, 2.0, 3.0, 0.0]])
    np.testing.assert_array_equal(merged("ties", vector, weight=1.0, density=0.5), [0, -2, 2, -2, 0, 0, 3, 0])
    np.testing.assert_array_equal(merged("ties", 0 * vector, weight=1.0, density=0.5), np.zeros(8))


def test_opposite_task_vectors_elect_plus() -> None:
    """Their weighted sum is exactly zero whatever the weight, as fused arithmetic would not have it."""
    vector = fp32(np.random.default_rng(1).normal(size=5000))
    got = merged("ties", np.stack([vector, -vector]), weight=0.3, density=1.0)
    np.testing.assert_allclose(got, np.abs(vector), rtol=1e-6)


def test_negative_weight_votes_for_the_opposite_sign() -> None:
    got = merged("ties", np.array([[1.0, 1.0], [3.0, -3.0]]), weight=[1.0, -1.0], density=1.0)
    np.testing.assert_allclose(got, [3.0, (1 + 3) / 1.0])  # the divisors: -1; 1 - 1 = 0, which counts as 1


@pytest.mark.parametrize("name", ELECTING)
def test_where_one_model_alone_has_a_say_it_is_taken_whole(name: str) -> None:
    apart = np.kron(np.eye(3), np.arange(1.0, 9.0))
    got = merged(name, apart, weight=WEIGHT, density=1.0, normalize=True, **({"gamma": 0.0} if "bread" in name else {}))
    np.testing.assert_allclose(got, apart.sum(axis=0), rtol=1e-6)


# Breadcrumbs


@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_breadcrumbs_keeps_the_middle(vectors: Array, name: str, gamma: float) -> None:
    got = merged(name, vectors, weight=WEIGHT, density=DENSITY, gamma=gamma)
    size = vectors[0].size
    skips = [min(int(gamma * size), size - int(d * size)) for d in DENSITY]
    kept = [middle(v, skip, int(d * size)) for v, skip, d in zip(vectors, skips, DENSITY, strict=True)]
    close(got, total(np.stack(kept), WEIGHT, elect=name == "breadcrumbs_ties"))


# All of them


@pytest.mark.parametrize("name", ELECTING + LINEAR)
@pytest.mark.parametrize("normalize", [True, False])
def test_density_one_is_the_plain_sum(vectors: Array, name: str, normalize: bool) -> None:
    """For Breadcrumbs too, whatever gamma."""
    got = merged(name, vectors, weight=WEIGHT, density=1.0, normalize=normalize, **{"lambda": 1.3})
    close(got, total(vectors, WEIGHT, elect=name in ELECTING, normalize=normalize, scale=1.3))


@pytest.mark.parametrize("name", ELECTING + LINEAR)
def test_order_of_models_does_not_matter_but_for_draws(vectors: Array, name: str) -> None:
    density = DENSITY if name in ("ties", "breadcrumbs", "breadcrumbs_ties") else [1.0] * 3
    got = merged(name, vectors[::-1], weight=WEIGHT[::-1], density=density[::-1], normalize=True)
    close(got, merged(name, vectors, weight=WEIGHT, density=density, normalize=True))


@pytest.mark.parametrize("name", ELECTING + LINEAR)
def test_twice_the_task_vectors_give_twice_the_result(vectors: Array, name: str) -> None:
    once, twice = (merged(name, by * vectors, weight=WEIGHT, density=0.5) for by in (1, 2))
    np.testing.assert_array_equal(twice, 2 * once)


@pytest.mark.parametrize("name", ELECTING + LINEAR)
def test_equal_models_give_that_model(vectors: Array, name: str) -> None:
    same = np.stack([vectors[0]] * 3)
    close(merged(name, same, weight=WEIGHT, density=1.0, normalize=True), vectors[0])


@pytest.mark.parametrize("name", ELECTING + LINEAR)
@pytest.mark.parametrize("shape", [(1,), (7,), (2047,), (2049,), (3, 5, 2), (1, 4100)])
def test_any_shape(name: str, shape: tuple[int, ...]) -> None:
    vectors = fp32(np.random.default_rng(2).normal(size=(2, *shape)))
    got = merged(name, vectors, weight=[1.0, 2.0], density=1.0, normalize=False)
    close(got, total(vectors, [1.0, 2.0], elect=name in ELECTING))


def test_weights_that_sum_to_zero_are_divided_by_one(vectors: Array) -> None:
    got = merged("breadcrumbs", vectors[:2], weight=[1.0, -1.0], density=1.0, normalize=True)
    close(got, vectors[0] - vectors[1])


def test_int8_mask_changes_nothing(vectors: Array) -> None:
    one, other = (merged("ties", vectors, weight=WEIGHT, density=0.3, int8_mask=mask) for mask in (True, False))
    np.testing.assert_array_equal(one, other)


@given(st.integers(0, 10**6), st.integers(1, 60), st.floats(0, 1), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_ties_of_few_distinct_values(seed: int, size: int, density: float, count: int) -> None:
    """Small integers: full of ties, zeros and sums of exactly zero, and exact in fp32."""
    vectors = np.random.default_rng(seed).integers(-3, 4, size=(count, size)).astype(np.float64)
    kept = max(1, int(density * size)) if density > 0 else 0
    trimmed = np.stack([middle(vector, 0, kept) for vector in vectors])
    got = merged("ties", vectors, weight=1.0, density=density)
    close(got, total(trimmed, [1.0] * count, elect=True, normalize=True))


# Random methods

RANDOM: list[tuple[str, dict[str, Any]]] = [
    ("dare_linear", {}),
    ("dare_ties", {}),
    ("della", {"epsilon": 0.2}),
    ("della_linear", {"epsilon": 0.2}),
]


@pytest.mark.parametrize(("name", "values"), RANDOM)
def test_same_seed_same_bits_whatever_the_threads(vectors: Array, name: str, values: dict[str, Any]) -> None:
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(merged(name, vectors, weight=WEIGHT, density=0.5, seed=3, **values))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*results)
    assert (merged(name, vectors, weight=WEIGHT, density=0.5, seed=4, **values) != results[0]).any()


@pytest.mark.parametrize(("name", "values"), RANDOM)
def test_global_random_state_is_left_alone(vectors: Array, name: str, values: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    merged(name, vectors, weight=WEIGHT, density=0.5, **values)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("name", "values"), RANDOM)
def test_models_are_dropped_from_apart(name: str, values: dict[str, Any]) -> None:
    """Two equal models lose different elements, by as much as independence says."""
    same = np.ones((2, 1, 40_000)) * [[[1.0]], [[1000.0]]]
    got = merged(name, same, weight=1.0, density=0.5, rescale=False, normalize=False, **values | {"epsilon": 0.0}
                 if "della" in name else values)  # fmt: skip
    shares = [np.mean(np.isclose(got, value)) for value in (0.0, 1.0, 1000.0, 1001.0)]
    np.testing.assert_allclose(shares, 0.25, atol=0.015)  # 7 standard deviations


@pytest.mark.parametrize("density", [0.1, 0.5, 0.83])
def test_dare_keeps_its_share_evenly_and_the_l1_norm(density: float) -> None:
    vector = fp32(np.random.default_rng(5).normal(size=(1, 200_000)))
    got = merged("dare_linear", vector, weight=1.0, density=density)
    kept = got != 0
    error = (density * (1 - density) / kept.size) ** 0.5
    assert abs(kept.mean() - density) < 6 * error
    assert abs(kept[::2].mean() - density) < 9 * error
    assert abs((kept[1:] & kept[:-1]).mean() - density**2) < 9 * error  # neighbours are independent
    assert abs(np.corrcoef(kept, np.abs(vector[0]))[0, 1]) < 6 / kept.size**0.5
    assert np.abs(got).sum() == pytest.approx(np.abs(vector).sum(), rel=1e-6)
    ratio = got[kept] / vector[0][kept]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    plain = merged("dare_linear", vector, weight=1.0, density=density, rescale=False)
    np.testing.assert_array_equal(plain, np.where(kept, vector[0], 0))


def test_dare_of_density_zero_leaves_the_base(vectors: Array) -> None:
    for name in ("dare_linear", "dare_ties"):
        assert not merged(name, vectors, weight=WEIGHT, density=0.0).any()


def test_dare_then_ties_of_what_was_kept() -> None:
    """Densities 1 and 0.5: where the second is seen to be dropped, the first stands alone."""
    vectors = np.stack([np.full(20_000, 1.0), np.full(20_000, -4.0)])
    got = merged("dare_ties", vectors, weight=1.0, density=[1.0, 0.5], rescale=False, normalize=True)
    assert set(got) == {1.0, -4.0}
    assert np.mean(got == 1.0) == pytest.approx(0.5, abs=0.03)


def test_della_keeps_by_rank_in_the_row() -> None:
    """Rows of quite different sizes: chances run from density - epsilon to density + epsilon in each."""
    generator = np.random.default_rng(6)
    rows, width, density, epsilon = 4000, 11, 0.6, 0.3
    vector = np.stack([generator.permutation(np.arange(1.0, width + 1)) for _ in range(rows)])
    vector *= np.exp(generator.normal(size=(rows, 1)) * 5)
    kept = merged("della_linear", fp32(vector)[None], weight=1.0, density=density, epsilon=epsilon) != 0
    ranks = vector.argsort(axis=1).argsort(axis=1)
    shares = [kept[ranks == rank].mean() for rank in range(width)]
    np.testing.assert_allclose(shares, density + epsilon * np.linspace(-1, 1, width), atol=6 * 0.5 / rows**0.5)


@pytest.mark.parametrize("rescale", [True, False])
def test_della_rescales_to_the_l1_norm(vectors: Array, rescale: bool) -> None:
    vector = vectors[:1]
    got = merged("della_linear", vector, weight=1.0, density=0.5, epsilon=0.1, rescale=rescale)
    ratio = np.abs(got).sum() / np.abs(vector).sum()
    if rescale:
        assert ratio == pytest.approx(1.0, rel=1e-6)
    else:
        np.testing.assert_array_equal(got[got != 0], vector[0][got != 0])
        assert 0.5 < ratio < 0.6  # larger ones are kept more often


def test_della_divides_by_weights_not_by_rescaled_weights() -> None:
    vector = np.stack([np.linspace(1, 2, 1000)])
    got = merged("della", vector, weight=3.0, density=0.5, epsilon=0.1)
    assert np.abs(got).sum() == pytest.approx(vector.sum(), rel=1e-6)


def test_della_without_epsilon_drops_evenly_also_in_rows_of_one() -> None:
    for shape in ((1, 1, 30_000), (1, 30_000, 1)):
        got = merged("della_linear", np.ones(shape), weight=1.0, density=0.3, epsilon=0.0, rescale=False)
        assert got.mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(("density", "epsilon"), [(0.9, 0.15), (0.1, 0.1), (0.85, 0.15), (0.0, 0.0), (0.999, 0.5)])
def test_della_refuses_impossible_chances(vectors: Array, density: float, epsilon: float) -> None:
    for name in ("della", "della_linear"):
        with pytest.raises(InvalidConfig, match="chances") as refusal:
            merged(name, vectors, weight=1.0, density=density, epsilon=epsilon)
        assert "epsilon" in refusal.value.hint


# SCE


def sce(vectors: Array, topk: float) -> Array:
    """The FuseChat paper's section 3.3, with mergekit's floors."""
    if topk < 1.0:
        variances = np.float32(vectors.var(axis=0))
        vectors = vectors * (middle(variances, 0, int(topk * np.count_nonzero(variances))) != 0)
    squares = (vectors**2).reshape(len(vectors), -1).mean(axis=1)
    weights = squares / squares.sum() if squares.sum() >= 1e-6 else np.full(len(squares), 1 / len(squares))
    weights = weights.reshape(-1, *[1] * (vectors.ndim - 1))
    agree = np.sign(vectors) == np.where(vectors.sum(axis=0) >= 0, 1.0, -1.0)
    return np.asarray((weights * vectors * agree).sum(axis=0) / np.maximum((weights * agree).sum(axis=0), 1e-6))


@pytest.mark.parametrize("topk", [1.0, 0.9, 0.3, 0.001, 0.0])
@pytest.mark.parametrize("size", [1.0, 1e-5])
def test_sce_is_the_papers(vectors: Array, topk: float, size: float) -> None:
    scaled = fp32(vectors * size * np.array([1, 3, 0.5]).reshape(3, 1, 1))
    close(merged("sce", scaled, select_topk=topk), sce(scaled, topk))


def test_sce_counts_positions_that_vary() -> None:
    """Half of the positions are equal in all models: of the other half, half stay."""
    vectors = np.zeros((2, 3000))
    vectors[:] = np.linspace(0.1, 1, 3000)
    vectors[1, ::2] += np.linspace(1, 2, 1500)
    got = merged("sce", vectors, select_topk=0.5)
    assert np.count_nonzero(got) == 750
    assert np.flatnonzero(got).min() == 1500


@pytest.mark.parametrize("topk", [1.0, 0.4])
def test_sce_does_not_depend_on_the_order_of_models(vectors: Array, topk: float) -> None:
    close(merged("sce", vectors[::-1], select_topk=topk), merged("sce", vectors, select_topk=topk))


def test_sce_of_equal_models(vectors: Array) -> None:
    """Nothing varies, so that any selection leaves the base."""
    same = np.stack([vectors[0]] * 3)
    close(merged("sce", same), vectors[0])
    assert not merged("sce", same, select_topk=0.99).any()


@pytest.mark.parametrize("name", [*ELECTING, *LINEAR, "sce"])
def test_no_change_is_no_change(name: str) -> None:
    density = {} if name == "sce" else {"weight": 1.0, "density": 0.5}
    assert not merged(name, np.zeros((3, 40, 50)), **density).any()


def test_vectors_need_not_be_contiguous(vectors: Array) -> None:
    tensors = torch.tensor(vectors, dtype=torch.float32).transpose(1, 2)
    for name in ("ties", "della_linear", "sce"):
        method = get_method(name)
        values = filled(name) | ({} if name == "sce" else {"weight": WEIGHT, "density": [1.0] * 3})
        values |= {"epsilon": [0.1] * 3} if name == "della_linear" else {}
        got = method.tensor(tensors.clone(memory_format=torch.preserve_format), values, has_base=True)
        want = method.tensor(tensors.contiguous(), values, has_base=True)
        assert torch.equal(got, want)
