"""A family whose steps are known exactly: independent, in high dimension."""

import numpy as np

from kinship.heritage.family import Family
from kinship.heritage.sampling import Sample
from tests.kinship.heritage.families import family_of

PARENTS = {1: 0, 2: 1, 3: 2, 4: 1, 5: 0, 6: 5, 7: 4}


def stepped(base: int | None = None) -> Family:
    """Eight models of three matrices; each step independent of the weights, so that it lengthens them."""
    random = np.random.default_rng(0)
    samples = []
    for name in "abc":
        models = [random.normal(size=(40, 40))]
        for child in range(1, 8):
            models.append(models[PARENTS[child]] + 0.3 * random.normal(size=(40, 40)))
        samples.append(Sample(name, tuple(range(8)), np.array(models, dtype=np.float32)))
    return family_of(samples, base=base)


def star(steps: list[float], grown: float = 1.15, shared: float = 0.5, seed: int = 0) -> list[Sample]:
    """A base and one child for each of ``steps``, which are of so many of the base's length and independent, but that
    all weights grow (or decay) to ``grown`` times theirs and that all move by ``shared`` of a step in one direction.
    """
    random = np.random.default_rng(seed)
    samples = []
    for name in "abcd":
        base, common = random.normal(size=(2, 40, 40))
        children = [grown * base + step * (random.normal(size=(40, 40)) + shared * common) for step in steps]
        samples.append(Sample(name, tuple(range(1 + len(steps))), np.array([base, *children], dtype=np.float32)))
    return samples


def without(samples: list[Sample], model: int) -> list[Sample]:
    """``samples`` of all other models."""
    kept = [owner for owner in samples[0].owners if owner != model]
    return [Sample(one.name, tuple(range(len(kept))), one.values[kept]) for one in samples]
