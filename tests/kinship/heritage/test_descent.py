"""Branching on families whose steps are known exactly; the matrix-tree theorem against enumeration of forests."""

import itertools

import numpy as np
import pytest

from kinship.heritage.descent import Forests, branch, forests, mixture, options
from kinship.heritage.sampling import Sample
from kinship.heritage.signals import signals
from tests.kinship.heritage.families import family_of
from tests.kinship.heritage.steps import PARENTS, star, stepped, without


def test_a_tree_of_independent_steps_is_found_with_its_root() -> None:
    told = branch(*signals(stepped()), range(8), range(8), [])
    assert {child: parent for child, (parent, _) in told.items()} == PARENTS
    assert all(0.45 < probability <= 1 for _, probability in told.values())


def told_of(samples: list[Sample], base: int | None = None) -> dict[int, tuple[int, float]]:
    family = family_of(samples, base=base)
    return branch(*signals(family), family.unexplained, family.parents, [])


@pytest.mark.parametrize("steps", [[0.4, 0.45, 0.5, 0.42], [0.9, 0.8, 1.0, 0.9, 0.7], [0.04, 0.05, 0.045, 0.04]])
@pytest.mark.parametrize("grown", [1.15, 0.8])
def test_siblings_whose_parent_is_missing_are_not_told_as_parent_and_child(steps: list[float], grown: float) -> None:
    samples = star(steps, grown)
    given = told_of(samples, base=0)
    assert {child: parent for child, (parent, _) in given.items()} == dict.fromkeys(range(1, len(steps) + 1), 0)
    assert min(confidence for _, confidence in given.values()) >= 0.9
    withheld = told_of(without(samples, 0))
    assert not [confidence for _, confidence in withheld.values() if confidence >= 0.9]


def test_two_runs_on_the_same_data_are_siblings() -> None:
    random = np.random.default_rng(3)
    samples = []
    for one in star([0.2, 0.3, 0.25]):  # a fourth and fifth have a step in common beside one each of their own
        common = 1.15 * one.values[0] + 0.2 * random.normal(size=(40, 40))
        twins = common + 0.1 * random.normal(size=(2, 40, 40))
        samples.append(Sample(one.name, tuple(range(6)), np.float32([*one.values, *twins])))
    told = told_of(samples, base=0)
    assert not [child for child, (parent, sure) in told.items() if {child, parent} == {4, 5} and sure > 0.7]
    told = told_of(without(samples, 0))
    assert not [child for child, (parent, sure) in told.items() if {child, parent} == {3, 4} and sure >= 0.9]


def test_certain_edges_make_no_cycle() -> None:
    told = branch(*signals(stepped()), range(8), range(8), [(7, 1)])
    assert told.get(4, (None,))[0] != 1 or told.get(7, (None,))[0] != 4


def test_children_of_certain_edges_have_those_alone() -> None:
    values, _ = signals(stepped())
    choice = options(values, [1, 2], range(8), [(1, 4), (2, 4), (4, 7)])
    assert choice.nodes == tuple(range(8))
    assert not choice.edges[:, 3:].any()
    assert not choice.edges[:, 0].any()
    assert choice.edges[:, 2].sum() == 5  # not itself, nor 4 and 7, which come from it
    assert np.argwhere(choice.certain).tolist() == [[1, 4], [2, 4], [4, 7]]
    assert choice.roots.tolist() == [True, True, True, True, False, True, True, False]


def enumerated(edges: np.ndarray, roots: np.ndarray, single: float) -> Forests:
    """Each node's parent, or itself for a root, in all ways; those that end at roots are summed."""
    count = len(roots)
    total, one, by_edge, by_root = 0.0, 0.0, np.zeros((count, count)), np.zeros(count)
    for parents in itertools.product(range(count), repeat=count):
        line = list(range(count))
        for _ in range(count):
            line = [parents[node] for node in line]
        starts = [node for node in range(count) if parents[node] == node]
        if not set(line) <= set(starts):
            continue
        score = sum(roots[node] if parents[node] == node else edges[parents[node], node] for node in range(count))
        weight = np.exp(score + single * (len(starts) == 1))
        total += weight
        one += weight * (len(starts) == 1)
        for node, parent in enumerate(parents):
            if parent == node:
                by_root[node] += weight
            else:
                by_edge[parent, node] += weight
    return Forests(np.log(total), by_edge / total, by_root / total, np.asarray(one / total))


def same(told: Forests, true: Forests) -> None:
    assert told.log_total == pytest.approx(true.log_total, abs=1e-9)
    np.testing.assert_allclose(told.edges, true.edges, atol=1e-9)
    np.testing.assert_allclose(told.roots, true.roots, atol=1e-9)
    assert told.single == pytest.approx(true.single, abs=1e-9)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("case", ["all", "a root", "two roots", "no root"])
def test_sums_over_forests_are_those_of_enumeration(count: int, case: str) -> None:
    random = np.random.default_rng(count)
    edges, roots = 2 * random.normal(size=(count, count)), random.normal(size=count)
    np.fill_diagonal(edges, -np.inf)
    if case == "a root":
        edges[:, 1] = -np.inf
    elif case == "two roots":
        edges[:, :2] = -np.inf
    elif case == "no root":
        roots[1] = -np.inf
    for single in (0.0, 3.0, -3.0):
        same(forests(edges, roots, single), enumerated(edges, roots, single))


def test_probabilities_are_the_gradient() -> None:
    random = np.random.default_rng(7)
    edges, roots, step = random.normal(size=(6, 6)), random.normal(size=6), 1e-6
    np.fill_diagonal(edges, -np.inf)
    told = forests(edges, roots, 1.0)
    edges[2, 4] += step
    assert (forests(edges, roots, 1.0).log_total - told.log_total) / step == pytest.approx(told.edges[2, 4], abs=1e-5)
    assert (forests(edges, roots, 1.0 + step).log_total - forests(edges, roots, 1.0).log_total) / step == pytest.approx(
        told.single, abs=1e-5
    )


def test_every_node_has_one_parent_or_is_a_root_in_large_and_lopsided_families() -> None:
    random = np.random.default_rng(0)
    edges, roots = 30 * random.normal(size=(60, 60)), 30 * random.normal(size=60)
    np.fill_diagonal(edges, -np.inf)
    told = forests(edges, roots, 2.0)
    np.testing.assert_allclose(told.edges.sum(0) + told.roots, 1, atol=1e-4)
    assert told.edges.min() > -1e-6


def test_a_mixture_is_the_sum_of_its_parts() -> None:
    random = np.random.default_rng(1)
    edges, roots = random.normal(size=(2, 3, 3)), random.normal(size=(2, 3))
    edges[:, range(3), range(3)] = -np.inf
    parts = [enumerated(edges[kind], roots[kind], 0.5) for kind in range(2)]
    whole, chances = mixture(forests(edges, roots, 0.5), np.array([0.0, -1.0]))
    sums = np.exp([parts[0].log_total, parts[1].log_total - 1.0])
    np.testing.assert_allclose(chances, sums / sums.sum())
    assert whole.log_total == pytest.approx(np.log(sums.sum()))
    np.testing.assert_allclose(whole.edges, chances[0] * parts[0].edges + chances[1] * parts[1].edges)
    np.testing.assert_allclose(whole.roots, chances[0] * parts[0].roots + chances[1] * parts[1].roots)


def test_many_at_once_are_as_each_alone() -> None:
    """Among them one that can have no single root, and one whose root is known."""
    random = np.random.default_rng(5)
    edges, roots, single = random.normal(size=(4, 5, 5)), random.normal(size=(4, 5)), np.array([0.0, 1.0, 2.0, -1.0])
    edges[:, range(5), range(5)] = -np.inf
    edges[1, :, :2] = -np.inf
    edges[2, :, 3] = -np.inf
    together = forests(edges, roots, single)
    for place in range(4):
        alone = forests(edges[place], roots[place], float(single[place]))
        same(Forests(*(part[place] for part in vars(together).values())), alone)
