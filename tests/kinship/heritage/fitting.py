"""Fits the weights of `kinship.heritage.descent` on grown families; prints them.

    python -m tests.kinship.heritage.fitting FOLDER [--stories shared/models/stories260K/model.safetensors]

Maximum likelihood of the true trees (conditional random field, Lafferty, McCallum, Pereira, ICML 2001), with an L2
penalty: gradients are signals expected over the true trees less those expected over all trees.
"""

import argparse
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
from kinship.heritage.descent import Options, branch, distribution, mixture, options
from kinship.heritage.signals import NAMES, ROOTS
from tests.kinship.heritage.growth import STORY, Grown, grow_or_load, pretrained
from tests.kinship.heritage.judging import MERGES, original

Rows = NDArray[np.float64]
SEEDS, STORIES = (*range(71), *range(100, 170)), range(200, 224)  # reported are 1000 and more
PENALTY = 0.1  # L2, on weights of standardised signals
DIRECTION = ("longer", "even", "lengthened")  # signals with weights of their own in each kind of family


@dataclass(frozen=True)
class Case:
    """A family: signals of its pairs (m, m, signals) and models (m, roots), what its tree could be, and what it is."""

    edges: Rows
    roots: Rows
    all: Options
    true: Options


def case(grown: Grown, folder: Path, withheld: bool) -> Case:
    """Children whose truth is no single parent (merges not recognised) may have any, in the true trees too."""
    seen: list[Any] = []

    def spy(*arguments: Any) -> dict[int, tuple[int, float]]:
        seen.append(arguments)
        return branch(*arguments)

    here = [m for m in grown.members if m.kind != "outsider" and not (withheld and m.kind == "base")]
    with patch.object(finetunes, "branch", spy):
        recover([folder / f"{member.name}.safetensors" for member in here])
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
    return Case(values[np.ix_(nodes, nodes)], roots[nodes], choice, restricted(choice, truth, certain))


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


def loss(cases: Sequence[Case], weights: Rows, odds: Rows) -> tuple[float, Rows, Rows]:
    """Nats of the true trees, and the gradients. ``weights`` (kinds, edges + roots + 1), the last of one root."""
    total, slope, lean = 0.0, np.zeros_like(weights), np.zeros_like(odds)
    for one in cases:
        for sign, choice in ((1, one.all), (-1, one.true)):
            parts = [
                distribution(choice, one.edges @ w[: len(NAMES)], one.roots @ w[len(NAMES) : -1], float(w[-1]))
                for w in weights
            ]
            whole, chances = mixture(parts, odds.tolist())
            total += sign * whole.log_total
            lean += sign * chances
            for kind, (part, chance) in enumerate(zip(parts, chances, strict=True)):
                edges, roots = np.tensordot(part.edges * choice.edges, one.edges, 2), part.roots @ one.roots
                slope[kind] += sign * chance * np.concatenate([edges, roots, [part.single]])
    return total, slope, lean


def fit(cases: Sequence[Case]) -> tuple[Rows, Rows, float]:
    """Weights (2, edges + roots + 1) and log odds (2,) of the kinds of families, and the mean loss in nats a family.

    The kinds differ in the signals of `DIRECTION` alone, which the second is started with the other way round.
    """
    spread = np.concatenate([one.edges[one.all.edges] for one in cases]).std(0)
    scale = np.concatenate([spread, np.ones(len(ROOTS) + 1)]) + 1e-9
    own = np.array([name in DIRECTION for name in (*NAMES, *ROOTS, "single")])

    def unpack(flat: Rows) -> Rows:
        weights = np.stack([flat[: len(scale)]] * 2)
        weights[1, own] = flat[len(scale) : -1]
        return weights / scale

    def objective(flat: Rows) -> tuple[float, Rows]:
        value, slope, lean = loss(cases, unpack(flat), np.array([0.0, flat[-1]]))
        slope = slope / scale
        shared = np.where(own, slope[0], slope.sum(0))
        gradient = np.concatenate([shared, slope[1, own], lean[1:]])
        return value + PENALTY / 2 * float(flat @ flat), gradient + PENALTY * flat

    first = np.where(own, np.where(np.array((*NAMES, *ROOTS, "single")) == "lengthened", -1.0, 1.0), 0.0)
    start = np.concatenate([first, -first[own], [-1.0]])
    best = minimize(objective, start, jac=True, method="L-BFGS-B")
    weights, odds = unpack(best.x), np.array([0.0, best.x[-1]])
    return weights, odds, loss(cases, weights, odds)[0] / len(cases)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="Families by seed; those that are not here are grown.")
    parser.add_argument("--stories", type=Path, help="Weights of stories260K, to grow families from too.")
    asked = parser.parse_args()
    cases = []
    for seed in (*SEEDS, *(STORIES if asked.stories else ())):
        start = (lambda: pretrained(asked.stories)) if seed in STORIES else None
        folder = asked.folder / str(seed)
        grown = grow_or_load(seed, folder, start, STORY if start else None)
        cases += [case(grown, folder, withheld) for withheld in (False, True)]
    weights, odds, mean = fit(cases)
    print(f"{len(cases)} families, {sum(len(one.all.nodes) for one in cases)} models, {mean:.3f} nats a family")
    rows = {name: tuple(pair) for name, pair in zip((*NAMES, *ROOTS), weights.T.round(3).tolist(), strict=False)}
    print("WEIGHTS = {\n" + "".join(f'    "{name}": {pair},\n' for name, pair in rows.items()) + "}")
    print(f"SINGLE = {tuple(weights[:, -1].round(3).tolist())}\nODDS = {tuple(odds.round(3).tolist())}")


if __name__ == "__main__":
    main()
