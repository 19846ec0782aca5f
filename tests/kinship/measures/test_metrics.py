import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinship import kinship_matrix
from kinship.errors import InvalidConfig
from kinship.measures.gram_metrics import cosine, euclidean, pcc
from kinship.measures.metrics import METRICS, Metric, get_metric, gram_kernel
from kinship.measures.table import reader_of
from tests.conftest import MakeModel

Rows = np.ndarray

OF_PRODUCTS = sorted(name for name, metric in METRICS.items() if metric.kernel)


def measure(kernel: str, rows: Rows) -> Rows:
    return gram_kernel(kernel)(rows @ rows.T, rows.sum(axis=1), float(rows.shape[1]))


ROWS = np.random.default_rng(0).normal(0.2, 1.0, (5, 200)) * np.array([[1.0], [1e-3], [40.0], [1.0], [1.0]])
ROWS[4] = 0.5 - 2 * ROWS[3]


def test_pcc_is_numpys_correlation() -> None:
    got = measure("pcc", ROWS)
    np.testing.assert_allclose(got, np.corrcoef(ROWS), atol=1e-12)
    assert got[3, 4] == pytest.approx(-1.0)


def test_cosine_keeps_its_sign() -> None:
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    got = measure("cosine", ROWS)
    np.testing.assert_allclose(got, unit @ unit.T, atol=1e-12)
    assert got[3, 4] < 0


def test_euclidean_is_the_norm_of_the_difference() -> None:
    want = np.linalg.norm(ROWS[:, None] - ROWS[None, :], axis=2)
    np.testing.assert_allclose(measure("euclidean", ROWS), want, rtol=1e-9)


@pytest.mark.parametrize("metric", ["pcc", "cosine"])
def test_rows_of_zeros_have_no_direction(metric: str) -> None:
    got = measure(metric, np.vstack([ROWS[:2], np.zeros(200)]))
    assert np.isnan(got[2]).all()
    assert np.isnan(got[:, 2]).all()
    assert np.isfinite(got[:2, :2]).all()


def test_rows_of_zeros_have_a_distance() -> None:
    got = measure("euclidean", np.vstack([ROWS[:1], np.zeros(200)]))
    assert got[0, 1] == pytest.approx(np.linalg.norm(ROWS[0]))


@pytest.mark.parametrize("value", [0.1, -3.7, 1e-4])
def test_constant_rows_have_no_correlation(value: float) -> None:
    got = measure("pcc", np.vstack([ROWS[:2], np.full(200, value)]))
    assert np.isnan(got[2]).all()
    assert np.isnan(got[:, 2]).all()
    assert np.isfinite(got[:2, :2]).all()


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6), count=st.integers(2, 50))
@settings(deadline=None, max_examples=60)
def test_metrics_are_symmetric_bounded_and_scale_as_they_should(seed: int, scale: float, count: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(4, count + 1))
    for name in OF_PRODUCTS:
        values = measure(name, rows)
        np.testing.assert_allclose(values, values.T)
        assert np.diagonal(values).tolist() == [0.0 if name == "euclidean" else 1.0] * 4
        stretched = measure(name, rows * scale)
        np.testing.assert_allclose(stretched, values * scale if name == "euclidean" else values, rtol=1e-6, atol=1e-9)
        if name != "euclidean":
            assert np.abs(values).max() <= 1.0


def test_pcc_ignores_a_shift_and_cosine_does_not() -> None:
    shifted = ROWS[:2] + np.array([[5.0], [0.0]])
    np.testing.assert_allclose(measure("pcc", shifted), measure("pcc", ROWS[:2]), atol=1e-9)
    assert abs(measure("cosine", shifted)[0, 1] - measure("cosine", ROWS[:2])[0, 1]) > 1e-3


@pytest.mark.parametrize("name", OF_PRODUCTS)
def test_closeness_grows_with_kinship(name: str) -> None:
    near, far = np.array([1.0, 2.0, 3.5]), np.array([3.0, -1.0, 0.5])
    values = measure(name, np.stack([np.array([1.0, 2.0, 3.0]), near, far]))
    metric = get_metric(name)
    assert metric.closeness(values[0, 1]) > metric.closeness(values[0, 2])


def test_unknown_metric_is_refused_naming_the_known() -> None:
    with pytest.raises(InvalidConfig, match="'pearson'") as refusal:
        get_metric("pearson")
    for name in ("pcc", "cosine", "euclidean"):
        assert name in refusal.value.hint


def test_registry_names_kernels_and_readers_that_there_are() -> None:
    kernels = {name: gram_kernel(name) for name, metric in METRICS.items() if metric.kernel}
    assert kernels == {"pcc": pcc, "cosine": cosine, "euclidean": euclidean}
    assert {name: reader_of(metric).__name__ for name, metric in METRICS.items()} == {
        **dict.fromkeys(kernels, "read_gram"),
        "sign": "read_signs",
        "subspace": "read_overlaps",
    }


def test_a_metric_of_ones_own_is_one_row(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Metric("half", "half a cosine", True, kernel=f"{__name__}:half_cosine")
    monkeypatch.setitem(METRICS, "half", own)
    base = make_model("base")
    models = [make_model(f"m{seed}", seed, base) for seed in (1, 2)]
    wanted = kinship_matrix(models, base, "cosine").values / 2
    np.testing.assert_array_equal(kinship_matrix(models, base, "half").values, wanted)


def half_cosine(gram: Rows, sums: Rows, count: float) -> Rows:
    return cosine(gram, sums, count) / 2


def test_metric_that_needs_more_than_products_is_refused_naming_those_that_do_not() -> None:
    with pytest.raises(InvalidConfig, match="sign does not follow") as refusal:
        gram_kernel("sign")
    assert "pcc, cosine, euclidean" in refusal.value.hint
