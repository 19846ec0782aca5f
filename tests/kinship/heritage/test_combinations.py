"""Merges in families too large for all sets of parents to be tried."""

import numpy as np
import pytest

from kinship.heritage import combinations
from kinship.heritage.combinations import MOST_CANDIDATES, Combination, find_combinations
from kinship.heritage.distances import Geometry
from kinship.heritage.family import Relation
from tests.kinship.heritage.families import family_of

SIZES = (900, 400, 700, 500, 600, 300, 800, 450)


@pytest.fixture(scope="module")
def weights() -> list[np.ndarray]:
    """A base, 60 children of it and of each other, and three merges of some that are far from them."""
    draw = np.random.default_rng(0)
    found = [draw.normal(size=sum(SIZES))]
    for child in range(1, 61):
        parent = found[0] if child < 40 else found[int(draw.integers(child))]
        found.append(parent + draw.uniform(0.05, 0.8) * draw.normal(size=sum(SIZES)))
    lengths = [float(np.linalg.norm(one - found[0])) for one in found]
    far = np.argsort(lengths)[-6:].tolist()
    found.append(0.5 * found[far[0]] + 0.5 * found[far[1]])
    found.append(0.2 * found[far[2]] + 0.3 * found[far[3]] + 0.5 * found[far[4]])
    found.append(0.6 * found[far[5]] + 0.4 * found[1])
    return found


def geometry(models: list[np.ndarray]) -> Geometry:
    parts = [np.split(one, np.cumsum(SIZES)[:-1]) for one in models]
    squares = np.array([[np.square(part).sum() for part in one] for one in parts]).T
    apart = np.array([[[np.square(a - b).sum() for a, b in zip(x, y, strict=True)] for y in parts] for x in parts])
    return Geometry(
        tuple(f"layers.{n}.w" for n in range(len(SIZES))), np.array(SIZES, float), squares, apart.transpose(2, 0, 1)
    )


def found(measured: Geometry) -> list[Combination]:
    """Combinations that give the last three; of the others it is known how they were made."""
    known = [Relation(child, "finetune", 1.0, {}) for child in range(61)]
    return find_combinations(family_of(geometry=measured, found=known))


def test_parents_are_found_however_far_away_they_are(weights: list[np.ndarray]) -> None:
    measured = geometry(weights)
    far = np.argsort([np.linalg.norm(one - weights[0]) for one in weights[:61]])[-6:].tolist()
    nearest = [np.argsort(measured.total[child])[1 : MOST_CANDIDATES + 1].tolist() for child in (61, 62, 63)]
    assert not set(far[2:5]) <= set(nearest[1])  # the nearest alone would not do
    told = {one.child: one for one in found(measured) if one.child > 60}
    for child, parents, parts in (
        (61, far[:2], [0.5, 0.5]),
        (62, far[2:5], [0.2, 0.3, 0.5]),
        (63, [far[5], 1], [0.6, 0.4]),
    ):
        true = dict(zip(parents, parts, strict=True))
        assert set(told[child].parents) == set(parents)
        expected = np.tile([true[parent] for parent in told[child].parents], (len(SIZES), 1))
        np.testing.assert_allclose(told[child].coefficients, expected, atol=1e-5)


def test_dismissing_sets_early_changes_nothing(weights: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    measured = geometry(weights)
    quick = found(measured)
    monkeypatch.setattr(combinations, "MANY_SETS", 10**9)
    whole = found(measured)
    assert [(one.child, one.parents) for one in quick] == [(one.child, one.parents) for one in whole]
    assert all(np.array_equal(a.coefficients, b.coefficients) for a, b in zip(quick, whole, strict=True))
