"""Several objectives for a Gaussian process: a random direction through the Pareto front at each proposal.

Along a direction, the distance at which a ray from a reference point leaves what a point dominates is one number. Its
mean over all directions is, up to a constant, the dominated hypervolume, so whoever improves it along random directions
improves that (Zhang & Golovin, Random Hypervolume Scalarizations for Provable Multi-Objective Black Box Optimization,
ICML 2020, arXiv 2006.04655).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from kinship.arrays import Float64
from search.strategies.surrogate import Surrogate

MARGIN = 0.1  # the reference point lies below the worst founder of each task by this share of the founders' range
DRAWS = 128  # of scores, from which an expected improvement is estimated


@dataclass(frozen=True)
class Scales:
    """Tasks in units of the founders' range: ``reference`` (k,) and ``ranges`` (k,), in the scores' units."""

    reference: Float64
    ranges: Float64

    @classmethod
    def of(cls, founders: Float64) -> Self:
        """founders: (n, k) scores by task. Where all founders are equal, the range is 1."""
        low, high = founders.min(axis=0), founders.max(axis=0)
        ranges = np.where(high > low, high - low, 1.0)
        return cls(low - MARGIN * ranges, ranges)


def scalarised(scores: Float64, scales: Scales, direction: Float64) -> Float64:
    """The hypervolume that ``scores`` (..., k) dominate along ``direction`` (k,), a positive unit vector; (...,).

    ``min_i (y_i / d_i)^k`` with y counted from the reference point. Where it does not dominate that point there is no
    volume; such scores are negative, the more the further they are from doing so, so that they can be improved.

    >>> scalarised(np.array([[0.5, 0.9], [-0.1, 0.9]]), Scales(np.zeros(2), np.ones(2)), np.array([0.6, 0.8]))
    array([ 0.69444444, -0.02777778])
    """
    reach = ((scores - scales.reference) / scales.ranges / direction).min(axis=-1)
    found: Float64 = np.sign(reach) * np.abs(reach) ** len(direction)
    return found


def draw_direction(count: int, random: np.random.Generator) -> Float64:
    """A unit vector (count,) drawn evenly from those whose components are all positive."""
    normal = np.maximum(np.abs(random.normal(size=count)), 1e-6)
    direction: Float64 = normal / np.linalg.norm(normal)
    return direction


@dataclass(frozen=True)
class Scalarised:
    """Independent processes of the tasks, seen along ``direction``: in the place of one `Surrogate` of one score.

    normals: (`DRAWS`, k), the same draws for all points, so that their improvements are compared by like with like.
    """

    processes: tuple[Surrogate, ...]
    scales: Scales
    direction: Float64
    normals: Float64

    @classmethod
    def along(cls, processes: Sequence[Surrogate], scales: Scales, random: np.random.Generator) -> Self:
        """With a direction and normals drawn from ``random``."""
        count = len(processes)
        return cls(tuple(processes), scales, draw_direction(count, random), random.normal(size=(DRAWS, count)))

    @property
    def points(self) -> Float64:
        """The points observed (m, n)."""
        return self.processes[0].points

    def expected(self, points: Float64) -> Float64:
        """What the expected scores of ``points`` (m, n) come to along the direction (m,)."""
        means = np.stack([process.expected(points) for process in self.processes], axis=-1)
        return scalarised(means, self.scales, self.direction)

    def expected_improvement(self, points: Float64) -> Float64:
        """How much more hypervolume along the direction than the best observed point is expected to have (m,)."""
        best = self.expected(self.points).max()
        means, deviations = np.stack([process.predict(points) for process in self.processes], axis=-1)
        drawn = scalarised(means + deviations * self.normals[:, None], self.scales, self.direction)
        improvement: Float64 = np.maximum(drawn - best, 0.0).mean(axis=0)
        return improvement
