"""Merges that trim, made here weight by weight."""

import numpy as np
import pytest

from kinship.heritage.grids import to_grid
from kinship.heritage.sampling import Sample
from kinship.heritage.trimmed import TrimmedMerge, trimmed_merges
from tests.kinship.heritage.families import family_of

SHAPE = (64, 128)


def models(size: float = 0.03, tuned: int = 3) -> list[np.ndarray]:
    """Two matrices of a base and of ``tuned`` fine-tunes: (2, 64, 128) each, in double precision."""
    random = np.random.default_rng(0)
    base = random.normal(size=(2, *SHAPE))
    return [
        base,
        *(base + size * random.normal(size=base.shape) * np.array([1.0, 0.3])[:, None, None] for _ in range(tuned)),
    ]


def dare(
    base: np.ndarray, tuned: list[np.ndarray], weights: list[float], density: float, rescale: bool = True
) -> np.ndarray:
    """Yu et al., arXiv 2311.03099: each change is dropped at random, and the rest made up for it."""
    random = np.random.default_rng(1)
    change = sum(
        w * (random.random(base.shape) < density) * (one - base) for w, one in zip(weights, tuned, strict=True)
    )
    return base + change / (density if rescale else 1.0)


def ties(base: np.ndarray, tuned: list[np.ndarray], density: float, scale: float = 1.0) -> np.ndarray:
    """Yadav et al., arXiv 2306.01708, one matrix at a time."""
    changes = np.stack([one - base for one in tuned])
    least = np.quantile(np.abs(changes), 1 - density, axis=(2, 3), keepdims=True)
    changes = np.where(np.abs(changes) >= least, changes, 0.0)
    agree = np.sign(changes) == np.where(changes.sum(0) >= 0, 1.0, -1.0)
    return base + scale * (changes * agree).sum(0) / np.maximum(agree.sum(0), 1)


def told(members: list[np.ndarray], child: np.ndarray, grid: str = "float32") -> TrimmedMerge | None:
    values = np.stack([*members, child]).astype(np.float32)
    values = values if grid == "float32" else to_grid(values, grid)
    count = len(values)
    samples = [Sample(name, tuple(range(count)), values[:, place]) for place, name in enumerate(("one", "two"))]
    found = trimmed_merges(family_of(samples, grids=[grid] * count))
    return next((one for one in found if one.child == count - 1), None)


@pytest.mark.parametrize("grid", ["float32", "bfloat16"])
@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_dare_of_two(density: float, grid: str) -> None:
    members = [to_grid(one.astype(np.float32), grid) if grid != "float32" else one for one in models(0.1)]
    found = told(members, dare(members[0], [members[1], members[2]], [0.6, 0.4], density), grid)
    assert found is not None
    assert (set(found.parents), found.base, found.method) == ({1, 2}, 0, "dare")
    factors = dict(zip(found.parents, found.factors, strict=True))
    assert factors == pytest.approx({1: 0.6 / density, 2: 0.4 / density}, rel=0.02)
    assert found.kept == pytest.approx((density, density), abs=0.02 if grid == "float32" else 0.06)


@pytest.mark.parametrize("rescale", [True, False])
def test_dare_of_three(rescale: bool) -> None:
    members = models()
    found = told(members, dare(members[0], members[1:], [0.5, 0.3, 0.2], 0.6, rescale))
    assert found is not None
    assert (set(found.parents), found.base, found.method) == ({1, 2, 3}, 0, "dare")


@pytest.mark.parametrize("grid", ["float32", "bfloat16"])
@pytest.mark.parametrize(("density", "scale"), [(0.2, 1.0), (0.5, 0.7), (0.8, 1.0)])
def test_ties(density: float, scale: float, grid: str) -> None:
    members = [to_grid(one.astype(np.float32), grid) if grid != "float32" else one for one in models(0.1)]
    found = told(members, ties(members[0], [members[1], members[3]], density, scale), grid)
    assert found is not None
    assert (set(found.parents), found.base, found.method) == ({1, 3}, 0, "ties")
    assert found.factors == pytest.approx((scale, scale), abs=0.01)


def test_ties_without_its_base() -> None:
    members = models()
    found = told(members[1:], ties(members[0], members[1:3], 0.8))
    assert found is not None
    assert (set(found.parents), found.base, found.method) == ({0, 1}, None, "ties")


def test_dare_without_its_base_is_not_told() -> None:
    members = models()
    assert told(members[1:], dare(members[0], members[1:3], [0.5, 0.5], 0.4)) is None


def test_what_keeps_by_size_and_sums_has_no_name_but_trimmed() -> None:
    members = models()
    child = members[0].copy()
    for one in members[1:3]:
        change = one - members[0]
        size = np.abs(change)
        low, high = np.quantile(size, [0.3, 0.97], axis=(1, 2), keepdims=True)
        child += 0.6 * np.where((size > low) & (size < high), change, 0.0)
    found = told(members, child)
    assert found is not None
    assert (set(found.parents), found.base, found.method) == ({1, 2}, 0, "trimmed")


def test_a_choice_among_two_models_number_by_number() -> None:
    members = models()
    found = told(members, np.where(np.random.default_rng(2).random(members[0].shape) < 0.3, members[1], members[2]))
    assert found is not None
    assert (set(found.parents), found.base, found.method) == ({1, 2}, None, "selection")


@pytest.mark.parametrize("grid", ["float32", "bfloat16"])
def test_fine_tunes_with_frozen_parts_are_no_merges(grid: str) -> None:
    members = models()
    child = np.where(np.random.default_rng(2).random(members[0].shape) < 0.5, members[1], members[1] + 0.03)
    assert (
        told(members, child + 0.02 * np.random.default_rng(3).normal(size=child.shape) * (child != members[1]), grid)
        is None
    )


def test_matrices_that_not_all_have_are_left_out() -> None:
    values = np.stack([one[0] for one in models()]).astype(np.float32)
    samples = [Sample("all", (0, 1, 2, 3), values), Sample("some", (0, 1), values[:2])]
    assert trimmed_merges(family_of(samples)) == []
