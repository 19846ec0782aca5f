"""Whitened distances against a closed form, and against what they are for: siblings trained on like data."""

import numpy as np
import pytest

from kinship.heritage.distances import Geometry
from kinship.heritage.sampling import Sample
from kinship.heritage.signals import whitened_distances


def geometry_of(values: np.ndarray) -> Geometry:
    flat = values.reshape(len(values), -1).astype(np.float64)
    apart = np.square(flat[:, None] - flat[None]).sum(2)[None]
    return Geometry(("w",), np.array([float(flat.shape[1])]), np.square(flat).sum(1)[None], apart)


def test_distances_do_not_depend_on_how_rows_and_columns_are_mixed() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(30, 6, 8))
    left, right = random.normal(size=(6, 6)), random.normal(size=(8, 8))
    mixed = left @ values @ right
    plain, turned = (
        whitened_distances([Sample("w", tuple(range(30)), one.astype(np.float32))], geometry_of(one))
        for one in (values, np.linalg.qr(left)[0] @ values @ np.linalg.qr(right)[0])
    )
    np.testing.assert_allclose(plain, turned, rtol=1e-4)  # rotations exactly; scales only in the limit of many models
    scaled = whitened_distances([Sample("w", tuple(range(30)), mixed.astype(np.float32))], geometry_of(mixed))
    off = ~np.eye(30, dtype=bool)
    assert np.corrcoef(plain[off], scaled[off])[0, 1] > 0.8
    assert np.corrcoef(geometry_of(values).apart[0][off], geometry_of(mixed).apart[0][off])[0, 1] < 0.6


def test_siblings_trained_on_like_data_are_told_from_a_chain() -> None:
    random = np.random.default_rng(1)
    parent = random.normal(size=(48, 48))
    shared = 3 * np.outer(random.normal(size=48), random.normal(size=48))  # what the data asks for: few directions
    siblings = [parent + shared + random.normal(size=(48, 48)) for _ in range(2)]
    others = [parent + 3 * random.normal(size=(48, 1)) @ random.normal(size=(1, 48)) for _ in range(6)]
    values = np.stack([parent, *siblings, *(one + random.normal(size=(48, 48)) for one in others)])
    geometry = geometry_of(values)
    assert geometry.apart[0, 1, 2] < geometry.apart[0, 0, 1]
    own = whitened_distances([Sample("w", tuple(range(9)), values.astype(np.float32))], geometry)
    assert own[0, 1] < own[1, 2]
    assert own[0, 2] < own[1, 2]


def test_equal_models_are_at_no_distance_and_vectors_alone_are_measured_plainly() -> None:
    values = np.random.default_rng(2).normal(size=(4, 6, 6))
    values[3] = values[0]
    geometry = geometry_of(values)
    own = whitened_distances([Sample("w", (0, 1, 2, 3), values.astype(np.float32))], geometry)
    assert own[0, 3] == 0
    assert own[0, 1] > 0
    assert whitened_distances([], geometry) == pytest.approx(geometry.apart[0])
