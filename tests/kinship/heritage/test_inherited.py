"""Rows that training left alone: shares, decay and common ancestry, on rows made to be so."""

import numpy as np
import pytest

from kinship.heritage.sampling import Sample
from kinship.heritage.signals import inherited

ROWS, COLUMNS = 20, 16
DECAY = np.float32(1 - 1e-4)


def trained(random: np.random.Generator, rows: np.ndarray, used: slice, decay: np.float32 = DECAY) -> np.ndarray:
    found = rows * decay
    found[used] += 0.1 * random.normal(size=found[used].shape).astype(np.float32)
    return found


@pytest.fixture
def family() -> tuple[list[Sample], np.ndarray]:
    """0 is the parent of 1 and 2, and 2 of 3; 4 is 0 with all else trained; distances are those of the tree."""
    random = np.random.default_rng(0)
    base = random.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    one, two = trained(random, base, slice(0, 10)), trained(random, base, slice(5, 15), np.float32(1))
    rows = np.array([base, one, two, trained(random, two, slice(0, 5)), trained(random, base, slice(0, ROWS))])
    tree = np.array([[0, 1, 1, 2, 1], [1, 0, 2, 3, 2], [1, 2, 0, 1, 2], [2, 3, 1, 0, 3], [1, 2, 2, 3, 0]], dtype=float)
    return [Sample("embed", (0, 1, 2, 3, 4), rows)], tree


def told(family: tuple[list[Sample], np.ndarray]):  # type: ignore[no-untyped-def]
    samples, tree = family
    return inherited(samples, tree, range(5), [set() for _ in range(5)])


def test_shares_are_those_that_training_left_alone(family: tuple[list[Sample], np.ndarray]) -> None:
    kept = told(family).kept
    assert kept[0, 1] == kept[1, 0] == 10 / ROWS
    assert kept[0, 2] == 10 / ROWS
    assert kept[2, 3] == 15 / ROWS
    assert kept[1, 2] == 5 / ROWS
    assert not kept[4, :4].any()


def test_decay_tells_the_child_and_its_absence_nothing(family: tuple[list[Sample], np.ndarray]) -> None:
    shorter = told(family).shorter
    assert shorter[0, 1] == shorter[2, 3] == 1
    assert np.array_equal(shorter, -shorter.T)
    assert shorter[0, 2] == 0


def test_a_parent_lacks_nothing_that_its_child_shares_with_models_beside_it(
    family: tuple[list[Sample], np.ndarray],
) -> None:
    elsewhere = told(family).elsewhere
    assert elsewhere[0, 1] == elsewhere[0, 2] == elsewhere[2, 3] == 0
    # 1 has rows 10 to 19 of the base, 2 those from 15: half of what 1 shares with the base is not from 2.
    assert elsewhere[2, 1] == 0.5
    assert elsewhere[4, 1] == 1


def test_narrow_rows_and_matrices_that_some_lack_do_not_count(family: tuple[list[Sample], np.ndarray]) -> None:
    samples, tree = family
    narrow = Sample("narrow", samples[0].owners, samples[0].values[:, :, :4])
    some = Sample("some", (0, 1), samples[0].values[:2])
    found = inherited([narrow, some], tree, range(5), [set() for _ in range(5)])
    assert not found.kept.any()
    assert not found.elsewhere.any()
