"""Signals and branching on families whose steps are known exactly: independent, in high dimension."""

import numpy as np

from kinship.heritage.descent import branch, options
from kinship.heritage.distances import Geometry
from kinship.heritage.sampling import Sample
from kinship.heritage.signals import NAMES, ROOTS, evenness, inherited, signals, whitened_distances

PARENTS = {1: 0, 2: 1, 3: 2, 4: 1, 5: 0, 6: 5, 7: 4}


def family() -> tuple[Geometry, list[Sample]]:
    """Eight models of three matrices; each step independent of the weights, so that it lengthens them."""
    random = np.random.default_rng(0)
    samples = []
    for name in "abc":
        models = [random.normal(size=(40, 40))]
        for child in range(1, 8):
            models.append(models[PARENTS[child]] + 0.3 * random.normal(size=(40, 40)))
        samples.append(Sample(name, tuple(range(8)), np.array(models, dtype=np.float32)))
    flat = np.array([one.values.reshape(8, -1) for one in samples], dtype=np.float64)
    apart = np.square(flat[:, :, None] - flat[:, None]).sum(3)
    return Geometry(("a", "b", "c"), np.full(3, 1600.0), np.square(flat).sum(2), apart), samples


def values_of(geometry: Geometry, samples: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    every = range(8)
    alone: list[set[int]] = [set() for _ in every]
    own = whitened_distances(samples, geometry)
    rows = inherited(samples, own, every, alone)
    return signals(geometry, own, evenness(samples, 8), rows, every, alone, every)


def test_a_tree_of_independent_steps_is_found_with_its_root() -> None:
    told = branch(*values_of(*family()), range(8), range(8), [], None)
    assert {child: parent for child, (parent, _) in told.items()} == PARENTS
    assert all(0.45 < probability <= 1 for _, probability in told.values())


def test_signals_of_a_tree_are_those_of_its_definition() -> None:
    geometry, samples = family()
    values, roots = values_of(geometry, samples)
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
    geometry, samples = family()
    own = whitened_distances(samples, geometry)
    values, _ = values_of(geometry, samples)
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


def test_a_known_base_gets_no_parent_and_certain_edges_make_no_cycle() -> None:
    values, roots = values_of(*family())
    assert 2 not in branch(values, roots, range(8), range(8), [], 2)
    told = branch(values, roots, range(8), range(8), [(7, 1)], None)
    assert told.get(4, (None,))[0] != 1 or told.get(7, (None,))[0] != 4


def test_children_of_certain_edges_have_those_alone() -> None:
    values, _ = values_of(*family())
    choice = options(values, [0, 1, 2], range(8), [(1, 4), (2, 4), (4, 7)], 0)
    assert choice.nodes == tuple(range(8))
    assert not choice.edges[:, 3:].any()
    assert not choice.edges[:, 0].any()
    assert choice.edges[:, 2].sum() == 5  # not itself, nor 4 and 7, which come from it
    assert np.argwhere(choice.certain).tolist() == [[1, 4], [2, 4], [4, 7]]
    assert choice.roots.tolist() == [True, True, True, True, False, True, True, False]
