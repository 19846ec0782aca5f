"""Fits the weights of `kinship.heritage.descent` on families with known truth (`calibration` runs it).

Maximum likelihood of the true trees (conditional random field, Lafferty, McCallum, Pereira, ICML 2001), with an L2
penalty: gradients are signals expected over the true trees less those expected over all trees.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("KINSHIP_CACHE", "off")

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from kinship.heritage import finetunes, recover
from kinship.heritage.descent import Options, base_unknown, branch, distribution, mixture, options
from kinship.heritage.signals import NAMES, ROOTS
from tests.kinship.heritage.growth import Grown
from tests.kinship.heritage.judging import MERGES, original

Rows = NDArray[np.float64]
PENALTY = 0.1  # L2, on weights of standardised signals
DIRECTION = ("longer", "even", "lengthened")  # signals with weights of their own in each kind of family


@dataclass(frozen=True)
class Case:
    """A family: signals of its pairs (m, m, signals) and models (m, roots), what its tree could be, and what it is."""

    edges: Rows
    roots: Rows
    all: Options
    true: Options


def case(grown: Grown, folder: Path, withheld: bool, given: bool = False) -> tuple[Case, dict[int, int | None]]:
    """And the truth, parents by child. ``withheld``: the base is not here; ``given``: it is named.

    Children whose truth is no single parent (merges not recognised) may have any, in the true trees too."""
    seen: list[Any] = []

    def spy(*arguments: Any) -> dict[int, tuple[int, float]]:
        seen.append(arguments)
        return branch(*arguments)

    here = [m for m in grown.members if m.kind != "outsider" and not (withheld and m.kind == "base")]
    with patch.object(finetunes, "branch", spy):
        base = next(folder / f"{member.name}.safetensors" for member in grown.members if member.kind == "base")
        recover([folder / f"{member.name}.safetensors" for member in here], base if given else None)
    values, roots, children, parents, certain = max(seen, key=lambda arguments: len(arguments[2]))
    assert len(values) == len(here)
    members = {member.name: member for member in here}
    same = [members[original(member, members)] for member in here]
    truth: dict[int, int | None] = {}
    for child in children:
        made_from = {original(members[one], members) for one in same[child].parents if one in members}
        known = [one for one in parents if same[one].name in made_from]
        if same[child].kind not in MERGES:
            truth[child] = known[0] if known else None
    choice = options(values, children, parents, certain)
    nodes = np.array(choice.nodes)
    return Case(values[np.ix_(nodes, nodes)], roots[nodes], choice, restricted(choice, truth, certain)), truth


def restricted(choice: Options, truth: dict[int, int | None], certain: Sequence[tuple[int, int]]) -> Options:
    """``choice``, each child left with its parent, or with none; what certain edges contradict is left open."""
    edges, roots = choice.edges.copy(), choice.roots.copy()
    at = {model: place for place, model in enumerate(choice.nodes)}
    whole = nx.DiGraph(certain)
    for child, parent in truth.items():
        column = at[child]
        if parent is None:
            edges[:, column] = False
        elif choice.edges[at[parent], column]:
            whole.add_nodes_from((parent, child))
            if not nx.has_path(whole, child, parent):
                whole.add_edge(parent, child)
                edges[:, column] = False
                edges[at[parent], column], roots[column] = True, False
    return replace(choice, edges=edges, roots=roots)


Batch = tuple[Rows, Rows, Options, Options]  # cases of one size: edges, roots, all options and the true ones, stacked


def batches(cases: Sequence[Case]) -> list[Batch]:
    """Cases by their number of models."""
    sizes: dict[int, list[Case]] = {}
    for one in cases:
        sizes.setdefault(len(one.all.nodes), []).append(one)
    return [
        (
            np.stack([one.edges for one in alike]),
            np.stack([one.roots for one in alike]),
            _stacked([one.all for one in alike]),
            _stacked([one.true for one in alike]),
        )
        for alike in sizes.values()
    ]


def _stacked(choices: Sequence[Options]) -> Options:
    parts = [np.stack([getattr(one, name) for one in choices]) for name in ("edges", "roots", "certain")]
    return Options(choices[0].nodes, *parts)


def loss(grouped: Sequence[Batch], weights: Rows, odds: Rows) -> tuple[float, Rows, Rows]:
    """Nats of the true trees, and the gradients. ``weights`` (kinds, edges + roots + 1), the last of one root."""
    total, slope, lean = 0.0, np.zeros_like(weights), np.zeros_like(odds)
    for edges, roots, everything, true in grouped:
        scores = np.moveaxis(edges @ weights[:, : len(NAMES)].T, -1, 0)
        founding = np.moveaxis(roots @ weights[:, len(NAMES) : -1].T, -1, 0)
        unknown = base_unknown(roots)
        for sign, choice in ((1, everything), (-1, true)):
            parts = distribution(choice, scores, founding, weights[:, -1:] * unknown)
            whole, chances = mixture(parts, odds)
            total += sign * float(whole.log_total.sum())
            lean += sign * chances.sum(1)
            by_edge = np.einsum("kf,kfij,fijs->ks", chances, parts.edges * choice.edges, edges, optimize=True)
            by_root = np.einsum("kf,kfi,fis->ks", chances, parts.roots, roots)
            slope += sign * np.concatenate([by_edge, by_root, (chances * parts.single * unknown).sum(1)[:, None]], 1)
    return total, slope, lean


def fit(cases: Sequence[Case]) -> tuple[Rows, Rows, float]:
    """Weights (2, edges + roots + 1) and log odds (2,) of the kinds of families, and the mean loss in nats a family.

    The kinds differ in the signals of `DIRECTION` alone, which the second is started with the other way round.
    """
    spread = np.concatenate([one.edges[one.all.edges] for one in cases]).std(0)
    scale = np.concatenate([spread, np.ones(len(ROOTS) + 1)]) + 1e-9
    own = np.array([name in DIRECTION for name in (*NAMES, *ROOTS, "single")])
    grouped = batches(cases)

    def unpack(flat: Rows) -> Rows:
        weights = np.stack([flat[: len(scale)]] * 2)
        weights[1, own] = flat[len(scale) : -1]
        return weights / scale

    def objective(flat: Rows) -> tuple[float, Rows]:
        value, slope, lean = loss(grouped, unpack(flat), np.array([0.0, flat[-1]]))
        slope = slope / scale
        shared = np.where(own, slope[0], slope.sum(0))
        gradient = np.concatenate([shared, slope[1, own], lean[1:]])
        return value + PENALTY / 2 * float(flat @ flat), gradient + PENALTY * flat

    first = np.where(own, np.where(np.array((*NAMES, *ROOTS, "single")) == "lengthened", -1.0, 1.0), 0.0)
    start = np.concatenate([first, -first[own], [-1.0]])
    best = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 150})
    weights, odds = unpack(best.x), np.array([0.0, best.x[-1]])
    return weights, odds, loss(grouped, weights, odds)[0] / len(cases)
