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
