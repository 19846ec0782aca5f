"""Fits the weights of `kinship.heritage.calibration` on grown families; prints them.

    python -m tests.kinship.heritage.fitting FOLDER [--first 0] [--families 60]

A conditional logit (McFadden 1974): that the true tree is chosen among its neighbours, in which one model has another
parent or none, or has changed places with its parent. Neighbours that make a cycle are no trees.
"""

import argparse
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("KINSHIP_CACHE", "off")

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from kinship.heritage import reconstruct, recover
from kinship.heritage.descent import branch
from kinship.heritage.signals import NAMES
from tests.kinship.heritage.growth import Grown, grow_or_load
from tests.kinship.heritage.judging import MERGES, original

Rows = NDArray[np.float64]
PENALTY = 1.0  # L2, on weights of standardised signals


def choices(grown: Grown, folder: Path, withheld: bool) -> list[Rows]:
    """By child, signals summed over the tree of each neighbour less those of the true tree, its roots first."""
    seen: list[Any] = []

    def spy(*arguments: Any) -> dict[int, tuple[int, float]]:
        seen.append(arguments)
        return branch(*arguments)

    here = [m for m in grown.members if m.kind != "outsider" and not (withheld and m.kind == "base")]
    with patch.object(reconstruct, "branch", spy):
        recover([folder / f"{member.name}.safetensors" for member in here])
    values, children, parents, certain, _ = max(seen, key=lambda arguments: len(arguments[0]))
    assert len(values) == len(here)
    members = {member.name: member for member in here}
    same = [members[original(member, members)] for member in here]
    tree: dict[int, int | None] = {}
    for child in children:
        known = [one for one in parents if same[one].name in {original(members[p], members) for p in same[child].parents
                                                              if p in members}]  # fmt: skip
        tree[child] = known[0] if known and same[child].kind not in MERGES else None
    graph: nx.DiGraph[int] = nx.DiGraph(certain)
    graph.add_nodes_from(range(len(here)))
    graph.add_edges_from((parent, child) for child, parent in tree.items() if parent is not None)
    found = []
    for child in children:
        if same[child].kind in MERGES:
            continue
        mine = tree[child]
        rows = [_edge(values, mine, child)]
        below = nx.descendants(graph, child) | {child}
        options = [one for one in parents if one not in below and one != mine and values[one, child].any()]
        rows += [_edge(values, one, child) for one in [*options, *([None] if mine is not None else [])]]
        if mine in tree:
            above = tree[mine]
            swapped = _edge(values, above, child) + _edge(values, child, mine)
            rows.append(swapped - _edge(values, above, mine))
        found.append(np.array(rows) - rows[0])
    return found


def fit(found: list[Rows]) -> tuple[Rows, float]:
    """Weights (1 + signals), of having no parent first, and the mean loss in nats a child."""
    scale = np.concatenate(found).std(0) + 1e-9
    scaled = [rows / scale for rows in found]

    def loss(weights: Rows) -> tuple[float, Rows]:
        total, slope = PENALTY / 2 * float(weights @ weights), PENALTY * weights
        for rows in scaled:
            odds = rows @ weights
            chance = np.exp(odds - odds.max())
            total += float(odds.max() + np.log(chance.sum()))
            slope = slope + chance @ rows / chance.sum()
        return total, slope

    best = minimize(loss, np.zeros(len(scale)), jac=True, method="L-BFGS-B")
    return best.x / scale, best.fun / len(found)


def _edge(values: Rows, parent: int | None, child: int) -> Rows:
    none = np.zeros(1 + len(NAMES))
    none[0] = 1.0
    return none if parent is None else np.concatenate([[0.0], values[parent, child]])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--families", type=int, default=60)
    asked = parser.parse_args()
    found: list[Rows] = []
    for seed in range(asked.first, asked.first + asked.families):
        grown = grow_or_load(seed, asked.folder / str(seed))
        for withheld in (False, True):
            found += choices(grown, asked.folder / str(seed), withheld)
    weights, loss = fit(found)
    print(f"{len(found)} children, {sum(map(len, found))} trees, {loss:.3f} nats a child")
    print(f"INTERCEPT = {-weights[0]:.3f}")
    print("WEIGHTS = {\n" + "".join(f'    "{n}": {w:.3f},\n' for n, w in zip(NAMES, weights[1:], strict=True)) + "}")


if __name__ == "__main__":
    main()
