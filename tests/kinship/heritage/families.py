"""Families made of arrays, for finders to look into."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.heritage.distances import Geometry
from kinship.heritage.family import Family, Relation
from kinship.heritage.sampling import Sample


def family_of(
    samples: Sequence[Sample] = (),
    geometry: Geometry | None = None,
    grids: Sequence[str] = (),
    found: Sequence[Relation] = (),
    base: int | None = None,
) -> Family:
    """Of models called "0", "1" and so on. By default their distances are those of the samples that all have."""
    geometry = geometry or geometry_of(samples)
    count = geometry.squares.shape[1]
    models = [Checkpoint(str(place), Path(str(place)), {}, {}) for place in range(count)]
    family = Family(models, models, geometry.names, base=base, found=list(found))
    family.geometry, family.samples = geometry, list(samples)
    family.grids = list(grids) or ["float32"] * count
    return family


def geometry_of(samples: Sequence[Sample]) -> Geometry:
    """Distances of the samples that all have."""
    count = max(len(one.owners) for one in samples)
    whole = {one.name: one.values.reshape(count, -1).astype(np.float64) for one in samples if len(one.owners) == count}
    sizes = np.array([flat.shape[1] for flat in whole.values()], dtype=np.float64)
    squares = np.array([np.square(flat).sum(1) for flat in whole.values()])
    apart = np.array([np.square(flat[:, None] - flat).sum(2) for flat in whole.values()])
    return Geometry(tuple(whole), sizes, squares, apart)
