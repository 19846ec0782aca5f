"""Onset: which way from where paths meet a model lies, of families grown on a clock that is known."""

import numpy as np
import pytest

from kinship.heritage.family import Family
from kinship.heritage.onset import MIDDLE, onset
from kinship.heritage.sampling import Sample
from kinship.heritage.signals import whitened_distances
from tests.kinship.heritage.families import family_of

STEPS = (0.1, 0.2, 0.25, 0.3, 0.35)


def clocked(grown: float, base: bool = True, shared: float = 0.6, seed: int = 0) -> Family:
    """A base, first if it is here, and a sibling for each of `STEPS`: they all move in part in one direction, and the
    squared lengths of rows and columns grow (or shrink) by ``grown`` times the square of a step."""
    random = np.random.default_rng(seed)
    samples = []
    for name in "abc":
        start, common = random.normal(size=(2, 40, 40))
        steps = [step * (random.normal(size=(40, 40)) + shared * common) for step in STEPS]
        children = [start * (1 + grown * step**2) + away for step, away in zip(STEPS, steps, strict=True)]
        models = np.array([start, *children][0 if base else 1 :], dtype=np.float32)
        samples.append(Sample(name, tuple(range(len(models))), models))
    return family_of(samples)


@pytest.mark.parametrize("grown", [1.5, -2.5])
def test_a_base_is_before_where_paths_meet_and_a_sibling_is_beyond(grown: float) -> None:
    """Both lie a step from there: the distances of a base whose children moved alike are those of a sibling."""
    here, away = clocked(grown), clocked(grown, base=False)
    gone, fits = onset(here, whitened_distances(here))
    assert gone[0] < 0.15 < gone[1:].min()
    assert fits[0] > 0 > fits[1:].max()
    assert onset(away, whitened_distances(away))[0].min() > 0.15


def test_where_few_others_tell_or_all_moved_alike_nothing_is_told() -> None:
    random = np.random.default_rng(1)
    base = random.normal(size=(40, 40))
    two = family_of([Sample("a", (0, 1), np.float32([base, base + random.normal(size=(40, 40))]))])
    gone, fits = onset(two, whitened_distances(two))
    assert gone.tolist() == [MIDDLE] * 2
    assert fits.tolist() == [0.0] * 2
    equal = np.ones((4, 4)) - np.eye(4)  # all as far from each other
    four = family_of([Sample("a", (0, 1, 2, 3), random.normal(size=(4, 40, 40)).astype(np.float32))])
    assert onset(four, equal)[0].tolist() == [MIDDLE] * 4


def test_equal_models_tell_nothing_of_each_other() -> None:
    family = clocked(1.5)
    twice = family_of([Sample(s.name, tuple(range(7)), s.values[[0, 0, 1, 2, 3, 4, 5]]) for s in family.samples])
    gone, _ = onset(twice, whitened_distances(twice))
    assert gone[0] == gone[1]
    assert gone[0] < 0.15
