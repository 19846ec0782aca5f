"""Signals of descent: rows made to be inherited, distances against a closed form, steps that are known exactly."""

from collections.abc import Callable

import numpy as np
import pytest

from kinship.heritage.family import Family
from kinship.heritage.sampling import Sample
from kinship.heritage.signals import (
    NAMES,
    ROOTS,
    Inherited,
    _whitened,
    inherited,
    plain_distances,
    signals,
    whitened_distances,
)
from tests.kinship.heritage.families import family_of, geometry_of
from tests.kinship.heritage.steps import PARENTS, star, stepped

Measure = Callable[[Family], np.ndarray]
ROWS, COLUMNS = 20, 16
DECAY = np.float32(1 - 1e-4)


def trained(random: np.random.Generator, rows: np.ndarray, used: slice, decay: np.float32 = DECAY) -> np.ndarray:
    found = rows * decay
    found[used] += 0.1 * random.normal(size=found[used].shape).astype(np.float32)
    return found


@pytest.fixture
def rows() -> tuple[list[Sample], np.ndarray]:
    """0 is the parent of 1 and 2, and 2 of 3; 4 is 0 with all else trained; distances are those of the tree."""
    random = np.random.default_rng(0)
    base = random.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    one, two = trained(random, base, slice(0, 10)), trained(random, base, slice(5, 15), np.float32(1))
    made = np.array([base, one, two, trained(random, two, slice(0, 5)), trained(random, base, slice(0, ROWS))])
    tree = np.array([[0, 1, 1, 2, 1], [1, 0, 2, 3, 2], [1, 2, 0, 1, 2], [2, 3, 1, 0, 3], [1, 2, 2, 3, 0]], dtype=float)
    return [Sample("embed", (0, 1, 2, 3, 4), made)], tree


def told(rows: tuple[list[Sample], np.ndarray]) -> Inherited:
    samples, tree = rows
    return inherited(family_of(samples), tree)


def test_shares_are_those_that_training_left_alone(rows: tuple[list[Sample], np.ndarray]) -> None:
    kept = told(rows).kept
    assert kept[0, 1] == kept[1, 0] == 10 / ROWS
    assert kept[0, 2] == 10 / ROWS
    assert kept[2, 3] == 15 / ROWS
    assert kept[1, 2] == 5 / ROWS
    assert not kept[4, :4].any()


def test_decay_tells_the_child_and_its_absence_nothing(rows: tuple[list[Sample], np.ndarray]) -> None:
    shorter = told(rows).shorter
    assert shorter[0, 1] == shorter[2, 3] == 1
    assert np.array_equal(shorter, -shorter.T)
    assert shorter[0, 2] == 0


def test_a_parent_lacks_nothing_that_its_child_shares_with_models_beside_it(
    rows: tuple[list[Sample], np.ndarray],
) -> None:
    elsewhere = told(rows).elsewhere
    assert elsewhere[0, 1] == elsewhere[0, 2] == elsewhere[2, 3] == 0
    # 1 has rows 10 to 19 of the base, 2 those from 15: half of what 1 shares with the base is not from 2.
    assert elsewhere[2, 1] == 0.5
    assert elsewhere[4, 1] == 1


def test_narrow_rows_and_matrices_that_some_lack_do_not_count(rows: tuple[list[Sample], np.ndarray]) -> None:
    samples, tree = rows
    narrow = Sample("narrow", samples[0].owners, samples[0].values[:, :, :4])
    some = Sample("some", (0, 1), samples[0].values[:2])
    found = inherited(family_of([narrow, some]), tree)
    assert not found.kept.any()
    assert not found.elsewhere.any()


def sample(values: np.ndarray) -> Sample:
    return Sample("w", tuple(range(len(values))), values.astype(np.float32))


def whitened(values: np.ndarray) -> np.ndarray:
    return whitened_distances(family_of([sample(values)]))


def apart(values: np.ndarray) -> np.ndarray:
    return geometry_of([sample(values)]).apart[0]


def test_distances_do_not_depend_on_how_rows_and_columns_are_mixed() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(30, 6, 8))
    left, right = random.normal(size=(6, 6)), random.normal(size=(8, 8))
    mixed = left @ values @ right
    rotated = np.linalg.qr(left)[0] @ values @ np.linalg.qr(right)[0]
    plain, turned, scaled = (_whitened(one - one.mean(0)) for one in (values, rotated, mixed))
    assert plain is not None
    assert turned is not None
    assert scaled is not None
    np.testing.assert_allclose(plain, turned, rtol=1e-4)  # rotations exactly; scales only in the limit of many models
    off = ~np.eye(30, dtype=bool)
    assert np.corrcoef(plain[off], scaled[off])[0, 1] > 0.8
    assert np.corrcoef(apart(values)[off], apart(mixed)[off])[0, 1] < 0.6


def test_siblings_trained_on_like_data_are_told_from_a_chain() -> None:
    random = np.random.default_rng(1)
    parent = random.normal(size=(48, 48))
    shared = 3 * np.outer(random.normal(size=48), random.normal(size=48))  # what the data asks for: few directions
    siblings = [parent + shared + random.normal(size=(48, 48)) for _ in range(2)]
    others = [parent + 3 * random.normal(size=(48, 1)) @ random.normal(size=(1, 48)) for _ in range(6)]
    values = np.stack([parent, *siblings, *(one + random.normal(size=(48, 48)) for one in others)])
    assert apart(values)[1, 2] < apart(values)[0, 1]
    own = whitened(values)
    assert own[0, 1] < own[1, 2]
    assert own[0, 2] < own[1, 2]


def test_equal_models_are_at_no_distance_and_vectors_alone_are_measured_plainly() -> None:
    values = np.random.default_rng(2).normal(size=(4, 6, 6))
    values[3] = values[0]
    own = whitened(values)
    assert own[0, 3] == 0
    assert own[0, 1] > 0
    vectors = family_of([], geometry_of([sample(values)]))
    assert whitened_distances(vectors) == pytest.approx(apart(values))


def test_signals_of_a_tree_are_those_of_its_definition() -> None:
    values, roots = signals(stepped())
    longer, between, place, kept = (values[..., NAMES.index(name)] for name in ("longer", "between", "place", "kept"))
    assert np.array_equal(longer, -longer.T)
    assert all(longer[parent, child] == 0.5 for child, parent in PARENTS.items())
    # By the third model of a chain there is no detour; between neighbours there is.
    assert abs(between[0, 2]) < 0.2
    assert all(between[parent, child] > 0.4 for child, parent in PARENTS.items())
    assert all(place[parent, child] < 1 for child, parent in PARENTS.items())
    assert not kept.any()  # of weights that all changed nothing is inherited
    assert roots[:, ROOTS.index("lengthened")].argmin() == 0


def test_where_third_models_lie_is_as_pair_by_pair() -> None:
    own = whitened_distances(stepped())
    values, _ = signals(stepped())
    for parent, child in ((0, 1), (3, 4), (7, 2)):
        others = [one for one in range(8) if one not in (parent, child)]
        leave = (own[parent, child] + own[parent, others] - own[child, others]) / (2 * own[parent, child])
        inside = np.minimum(leave, 1 - leave)
        wanted = {
            "between": np.clip(np.log((own[parent, others] + own[child, others]).min() / own[parent, child]), -1, 1),
            "beyond": (leave > 0.5).mean(),
            "offshoot": np.clip(inside, 0, 0.5).mean(),
            "overshoot": np.clip(-inside, 0, 0.5).mean(),
        }
        for name, value in wanted.items():
            assert np.isclose(values[parent, child, NAMES.index(name)], value), name


@pytest.mark.parametrize("side", [16, 64])
def test_siblings_of_a_small_family_are_farther_from_each_other_than_from_their_parent(side: int) -> None:
    """Two fine-tunes and their base, steps independent: whitening must not make the three equally far apart."""
    random = np.random.default_rng(0)
    base = random.normal(size=(side, side))
    models = [base, *(base + 0.2 * random.normal(size=(2, side, side)))]
    apart = whitened_distances(family_of([Sample("one", (0, 1, 2), np.array(models, dtype=np.float32))]))
    assert apart[1, 2] > 1.25 * max(apart[0, 1], apart[0, 2])


@pytest.mark.parametrize("distances", [whitened_distances, plain_distances])
@pytest.mark.parametrize("grown", [0.8, 1.2])
def test_growth_and_decay_along_the_weights_do_not_move_models_apart(distances: Measure, grown: float) -> None:
    """Children whose weights all grew or shrank alike are siblings of independent steps, as if they had not."""
    family = family_of(star([0.2, 0.25, 0.22], grown, shared=0.0))
    told, raw = distances(family), family.geometry.total

    def common(apart: np.ndarray, one: int, other: int) -> float:
        """Of two children's steps from the base, the cosine."""
        inner = (apart[0, one] + apart[0, other] - apart[one, other]) / 2
        return float(inner / np.sqrt(apart[0, one] * apart[0, other]))

    for one, other in ((1, 2), (1, 3), (2, 3)):
        assert common(raw, one, other) > 0.25
        assert abs(common(told, one, other)) < 2 / 3 * common(raw, one, other)
