"""Passthrough merges of other depth: layers taken whole from other places, found by their sampled weights."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinship.heritage.sampling import Sample

_NUMBER = re.compile(r"\.(\d+)\.")
SAME = 0.999999  # cosine of weights that are equal up to a factor


@dataclass(frozen=True)
class Stack:
    """``child`` has tensors of ``parents``; ``origin``: by its names, (parent, name there). share: of its samples."""

    child: int
    parents: tuple[int, ...]
    origin: dict[str, tuple[int, str]]
    share: float


def find_stack(samples: Sequence[Sample], child: int, others: Sequence[int]) -> Stack | None:
    """Where the tensors of ``child`` were taken from among ``others``; None unless most of them were.

    Tensors are compared with those of the same name but for the layer's number. Cost: layers squared times samples.
    """
    kinds: dict[tuple[str, int, int], list[Sample]] = {}
    for one in samples:
        kinds.setdefault((_NUMBER.sub(".*.", one.name), *one.values.shape[1:]), []).append(one)
    origin: dict[str, tuple[int, str]] = {}
    total = 0
    for alike in kinds.values():
        rows = [
            (owner, one.name, _unit(one.values[place]))
            for one in alike
            for place, owner in enumerate(one.owners)
            if owner in others
        ]
        for one in alike:
            if child not in one.owners:
                continue
            total += 1
            mine = _unit(one.of(child))
            cosines = [float(mine @ row) for _, _, row in rows]
            if cosines and max(cosines) > SAME:
                # Of models that share the tensor, the one that gave most so far.
                equal = [rows[index][:2] for index, value in enumerate(cosines) if value > SAME]
                known = [owner for owner, _ in origin.values()]
                origin[one.name] = max(equal, key=lambda entry: (known.count(entry[0]), entry[1] == one.name))
    if not total or len(origin) < 0.8 * total:
        return None
    parents = tuple(sorted({owner for owner, _ in origin.values()}))
    return Stack(child, parents, origin, len(origin) / total)


def _unit(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1).astype(np.float64)
    length = np.linalg.norm(flat)
    return np.asarray(flat / length if length > 0 else flat)
