"""Families of many models: from samples of their weights, or from sketches that an index remembers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig, UnsupportedCheckpoint
from kinship.heritage.independence import Excerpts, Nearest, nearest_of
from kinship.heritage.sampling import Sample, samples
from kinship.heritage.stages import Stages
from kinship.sketches.index import Z_RELATED, SketchIndex
from kinship.sketches.sketch import WIDTH, Sketch, sketch, sketched_bytes

# Links are correlations of at least so many standard errors, and at least so much: below it, descent is no use.
ERRORS, LEAST = 6.0, 0.03
FALSE_LINK_RATE = math.erfc(ERRORS / math.sqrt(2)) / 2


def correlations(samples: Iterable[Sample], count: int) -> tuple[Float64, Float64]:
    """Mean correlation (n, n) of the matrices that two of ``count`` models share, and its standard error (n, n).

    Where two share none: 0 and infinity. Cost: n^2 times the elements sampled, in fp32; memory: that of one sample of
    all models, a few times.
    """
    total, error, shared = (np.zeros((count, count)) for _ in range(3))
    for one in samples:
        owners = np.array(one.owners)
        rows, columns = one.values.shape[1:]
        if min(rows, columns) < 2:
            continue
        values = one.values - one.values.mean(1, keepdims=True)
        values -= values.mean(2, keepdims=True)
        norms = np.linalg.norm(values, axis=(1, 2))
        varied = norms > 0
        owners, values = owners[varied], values[varied] / norms[varied, None, None]
        if len(values) < 2:
            continue
        flat = values.reshape(len(values), -1)
        by_rows = (values @ values.transpose(0, 2, 1)).reshape(len(values), -1)
        by_columns = (values.transpose(0, 2, 1) @ values).reshape(len(values), -1)
        variance = np.maximum(by_rows @ by_rows.T / (columns - 1), by_columns @ by_columns.T / (rows - 1))
        place = np.ix_(owners, owners)
        total[place] += flat @ flat.T
        error[place] += np.sqrt(variance)
        shared[place] += 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shared > 0, total / shared, 0.0), np.where(shared > 0, error / shared, np.inf)


def families(correlation: Float64, error: Float64, errors: float = ERRORS, least: float = LEAST) -> list[list[int]]:
    """Groups of models linked by correlations beyond chance, directly or through others; the largest first.

    >>> families(np.array([[1, 0.9, 0.01], [0.9, 1, 0], [0.01, 0, 1]]), np.full((3, 3), 0.01))
    [[0, 1], [2]]
    """
    linked = correlation > np.maximum(errors * error, least)
    return in_order(nx.connected_components(nx.from_numpy_array(linked)))


def in_order(groups: Iterable[Iterable[int]]) -> list[list[int]]:
    """Groups by size, the largest first, then by their first member."""
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))


# Sketches alone link models of at least this correlation, which no resemblance of trained networks reaches; where the
# nearest two of different groups show so many standard errors and so much, their samples decide.
SURE = 0.5
DOUBT, LEAST_DOUBT = 4.0, 0.03


@dataclass(frozen=True)
class Grouping:
    """``families``: places in the models, the largest first; by model, who is ``nearest``, where weights were asked."""

    families: list[list[int]]
    nearest: Mapping[int, Nearest] = field(default_factory=dict)
    notes: Sequence[str] = ()


def group(models: Sequence[Checkpoint], stages: Stages, index: SketchIndex | None = None) -> Grouping:
    """Families of ``models``. Cost: n^2 times what is sampled or sketched.

    With ``index``, models that it remembers as they are now are not read, unless sketches leave in doubt whether they
    are related; the others are read whole, once, and added to it, each as soon as it is sketched. Relatives whose
    weights correlate by less than `DOUBT` standard errors, about 0.06 for 150 tensors, are not found from sketches.
    """
    if index is None:
        excerpts = Excerpts(samples(models, stages))
        correlation, error = correlations(excerpts, len(models))
        found = families(correlation, error)
        return Grouping(found, nearest_of(excerpts.kept, correlation, found))
    notes: list[str] = []
    sketches = _sketches(models, index, stages, notes)
    correlation, error = sketched_correlations(sketches)
    sure = families(correlation, error, Z_RELATED, SURE)
    home = {place: number for number, members in enumerate(sure) for place in members}
    nearest: dict[tuple[int, int], tuple[int, int]] = {}
    doubtful = correlation > np.maximum(DOUBT * error, LEAST_DOUBT)
    # A model without a sketch may be related to anyone.
    blind = np.array([one is None for one in sketches])
    for one, other in np.argwhere(np.triu(doubtful | blind[:, None] | blind, 1)).tolist():
        key = home[one], home[other]
        if key[0] != key[1] and (key not in nearest or correlation[one, other] > correlation[nearest[key]]):
            nearest[key] = one, other
    asked = sorted({place for pair in nearest.values() for place in pair})
    links = nx.empty_graph(len(sure))
    if asked:
        exact, known = correlations(samples([models[place] for place in asked], stages), len(asked))
        linked = families(exact, known)
        links.add_edges_from((home[asked[members[0]]], home[asked[one]]) for members in linked for one in members)
    joined = nx.connected_components(links)
    return Grouping(in_order([one for number in numbers for one in sure[number]] for numbers in joined), notes=notes)


def sketched_correlations(sketches: Sequence[Sketch | None]) -> tuple[Float64, Float64]:
    """Correlation (n, n) of the tensors that two share, estimated, and its standard error; 0 and infinity for none."""
    keys = {key: place for place, key in enumerate(sorted({key for one in sketches if one for key in one.keys}))}
    sums = np.zeros((len(sketches), len(keys), WIDTH), dtype=np.float32)
    squares = np.zeros((len(sketches), len(keys)))
    for row, one in enumerate(sketches):
        if one is not None:
            places = [keys[key] for key in one.keys]
            sums[row, places], squares[row, places] = one.sums, one.squares
    flat = sums.reshape(len(sketches), -1)
    shared = squares @ (squares > 0).T  # squared norms of the first over the tensors that the second has too
    norms = np.sqrt(shared * shared.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.where(norms > 0, (flat @ flat.T) / norms, 0.0)
        return correlation, np.where(norms > 0, np.sqrt(squares @ squares.T / WIDTH) / norms, np.inf)


def _sketches(
    models: Sequence[Checkpoint], index: SketchIndex, stages: Stages, notes: list[str]
) -> list[Sketch | None]:
    """From the index or, kept there, from the weights; None where there is nothing to sketch."""
    found = [index.recall(model.id, model.fingerprint) for model in models]
    missing = [place for place, known in enumerate(found) if known is None]
    advance = stages.bytes("Sketching", sum(sketched_bytes(models[place]) for place in missing)) if missing else None
    for place in missing:
        model = models[place]
        try:
            found[place] = made = sketch(model, advance)
        except UnsupportedCheckpoint:
            continue
        try:
            index.add(model.id, made, state=model.fingerprint)
        except InvalidConfig as error:
            notes.append(f"{error.message} It was left there; the model given was sketched anew.")
    return found
