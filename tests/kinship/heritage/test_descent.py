"""Signals and branching on families whose steps are known exactly: independent, in high dimension."""

import numpy as np

from kinship.heritage.descent import branch
from kinship.heritage.geometry import Geometry
from kinship.heritage.sampling import Sample
from kinship.heritage.signals import NAMES, signals, spectra
from kinship.heritage.whitening import whitened_distances

PARENTS = {1: 0, 2: 1, 3: 2, 4: 1, 5: 0, 6: 5, 7: 4}


def family() -> tuple[Geometry, list[Sample]]:
    """Eight models of three matrices; each step independent of the weights, so that it lengthens them."""
    random = np.random.default_rng(0)
    samples = []
    for name in "abc":
        models = [random.normal(size=(40, 40))]
        for child in range(1, 8):
            models.append(models[PARENTS[child]] + 0.3 * random.normal(size=(40, 40)))
        samples.append(Sample(name, tuple(range(8)), np.array(models, dtype=np.float32), True))
    flat = np.array([one.values.reshape(8, -1) for one in samples], dtype=np.float64)
    apart = np.square(flat[:, :, None] - flat[:, None]).sum(3)
    return Geometry(("a", "b", "c"), np.full(3, 1600.0), np.square(flat).sum(2), apart), samples


def values_of(geometry: Geometry, samples: list[Sample]) -> np.ndarray:
    every = range(8)
    alone: list[set[int]] = [set() for _ in every]
    return signals(geometry, whitened_distances(samples, geometry), spectra(samples, 8), every, alone, every)


def test_a_tree_of_independent_steps_is_found_with_its_root() -> None:
    told = branch(values_of(*family()), range(8), range(8), [], None)
    assert {child: parent for child, (parent, _) in told.items()} == PARENTS
    assert all(0 < confidence <= 1 for _, confidence in told.values())


def test_signals_of_a_tree_are_those_of_its_definition() -> None:
    geometry, samples = family()
    values = values_of(geometry, samples)
    longer, outward, between = (values[..., NAMES.index(name)] for name in ("longer", "outward", "between"))
    assert np.array_equal(longer, -longer.T)
    assert all(longer[parent, child] == 0.5 for child, parent in PARENTS.items())
    # A step that knows nothing of the weights: |child|^2 - |parent|^2 = |step|^2, but for 2 / (0.3 * 40) a matrix.
    mean = np.mean([outward[parent, child] for child, parent in PARENTS.items()])
    assert abs(mean - 1) < 0.15
    # By the third model of a chain there is no detour; between neighbours there is.
    assert abs(between[0, 2]) < 0.2
    assert all(between[parent, child] > 0.4 for child, parent in PARENTS.items())


def test_a_known_base_gets_no_parent_and_certain_edges_make_no_cycle() -> None:
    values = values_of(*family())
    assert 2 not in branch(values, range(8), range(8), [], 2)
    told = branch(values, range(8), range(8), [(7, 1)], None)
    assert told.get(4, (None,))[0] != 1 or told.get(7, (None,))[0] != 4
