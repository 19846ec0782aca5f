"""Families against an independent truth: what renumbering units does to a correlation."""

import numpy as np

from kinship.heritage.grouping import correlations, families
from kinship.heritage.sampling import Sample


def test_the_variance_is_what_renumbering_gives() -> None:
    random = np.random.default_rng(0)
    # Of low rank, so that elements are anything but independent.
    one, other = (random.normal(size=(12, 2)) @ random.normal(size=(2, 9)) for _ in range(2))
    values = np.stack([one, other]).astype(np.float32)
    _, error = correlations([Sample("w", (0, 1), values)], 2)
    renumbered = []
    for _ in range(4000):
        for moved in (other[:, random.permutation(9)], other[random.permutation(12)]):
            pair = [part - part.mean(0) - part.mean(1, keepdims=True) + part.mean() for part in (one, moved)]
            renumbered.append(float((pair[0] * pair[1]).sum() / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])))
    by_columns, by_rows = np.std(renumbered[0::2]), np.std(renumbered[1::2])
    assert abs(error[0, 1] - max(by_columns, by_rows)) < 0.05 * error[0, 1]


def test_unrelated_matrices_stay_apart_and_descendants_do_not() -> None:
    random = np.random.default_rng(1)
    base = random.normal(size=(64, 64))
    values = np.stack([base, base + 0.5 * random.normal(size=base.shape), *random.normal(size=(20, 64, 64))])
    correlation, error = correlations([Sample("w", tuple(range(22)), values.astype(np.float32))], 22)
    groups = families(correlation, error)
    assert groups[0] == [0, 1]
    assert all(len(group) == 1 for group in groups[1:])


def test_a_matrix_of_zeros_is_passed_over() -> None:
    correlation, _ = correlations([Sample("w", (0, 1), np.zeros((2, 20, 20), dtype=np.float32))], 2)
    assert correlation[0, 1] == 0


def test_models_that_share_no_matrix_are_not_linked() -> None:
    values = np.random.default_rng(2).normal(size=(1, 20, 20)).astype(np.float32)
    correlation, error = correlations([Sample("a", (0,), values), Sample("b", (1,), values)], 2)
    assert np.isinf(error[0, 1])
    assert families(correlation, error) == [[0], [1]]
