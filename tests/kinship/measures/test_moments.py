import numpy as np
import pytest

from kinship.measures.moments import TILE, task_vector_moments, task_vector_row


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gram, sums = np.zeros((len(rows), len(rows))), np.zeros(len(rows))
    task_vector_moments(rows, gram, sums)
    assert not np.triu(gram, 1).any()  # the lower triangle only
    return gram + np.tril(gram, -1).T, sums


@pytest.mark.parametrize("count", [1, 7, TILE - 1, TILE, TILE + 1, 20_001])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
def test_moments_agree_with_float64(size: int, count: int, stored: str) -> None:
    rows = np.random.default_rng(count).normal(0.3, 1, (size, count)).astype(np.float32)
    if stored == "bfloat16":
        bits = (rows.view(np.uint32) >> 16).astype(np.uint16)
        rows = (bits.astype(np.uint32) << 16).view(np.float32)
        gram, sums = moments(bits)
    else:
        gram, sums = moments(rows)
    want = rows.astype(np.float64)
    want[1:] = (rows[1:] - rows[0]).astype(np.float64)  # the difference itself is taken in fp32
    norms = np.sqrt(np.diag(want @ want.T))
    np.testing.assert_array_less(np.abs(gram - want @ want.T), 3e-7 * np.outer(norms, norms) + 1e-300)
    np.testing.assert_allclose(sums, want.sum(axis=1), atol=3e-7 * np.abs(want).sum(axis=1).max())


@pytest.mark.parametrize("count", [1, TILE, 20_001])
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("stored", [np.uint16, np.float32])
@pytest.mark.parametrize("own", [np.uint16, np.float32])
def test_a_row_agrees_with_float64(size: int, count: int, stored: type, own: type) -> None:
    """Of weights that are large beside what they differ by, in either form of storage."""
    generator = np.random.default_rng(count)
    base = generator.normal(10, 1, count)
    bits = (base + 0.1 * generator.normal(size=(size + 1, count))).astype(np.float32).view(np.uint32) >> 16
    rows = (bits << 16).view(np.float32)
    given = [bits.astype(np.uint16) if kind is np.uint16 else rows for kind in (stored, own)]
    products, gaps = np.zeros(size + 1), np.zeros(size)
    total = task_vector_row(given[0][:-1], given[1][-1], products, gaps)
    exact = rows.astype(np.float64)
    want = np.concatenate([exact[:1], exact[1:] - exact[0]])
    norms = np.linalg.norm(want, axis=1)
    assert (np.abs(products - want @ want[-1]) <= 3e-7 * norms * norms[-1]).all()
    assert total == pytest.approx(want[-1].sum(), abs=3e-7 * np.abs(want).sum())
    np.testing.assert_allclose(gaps[1:], ((exact[1:-1] - exact[-1]) ** 2).sum(axis=1), rtol=1e-6)
    assert gaps[0] == 0.0


def test_long_sums_keep_their_precision() -> None:
    """One fp32 sum over so many equal terms is wrong in the third digit."""
    rows = np.full((1, 1 << 22), 0.1, dtype=np.float32)
    exact = float(rows[0, 0])
    gram, sums = moments(rows)
    assert gram[0, 0] == pytest.approx(exact**2 * rows.size, rel=1e-6)
    assert sums[0] == pytest.approx(exact * rows.size, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_come_through(bad: float) -> None:
    rows = np.ones((3, 5000), dtype=np.float32)
    rows[2, 4321] = bad
    gram, _ = moments(rows)
    assert not np.isfinite(gram[2, 2])
    assert np.isfinite(gram[:2, :2]).all()
