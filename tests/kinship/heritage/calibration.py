"""Confidences on families of kinds that nothing was fitted on: each kind of `kinds` is left out in turn.

    python -m tests.kinship.heritage.calibration FOLDER [--seeds 5]

Every family is asked for whole with its base named, whole without, and without its base; in parts as well, since few
models tell less. A model's parent is its nearest ancestor that is here: no weights tell of a training between.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kinship.checkpoints.opening import open_checkpoint
from kinship.heritage.descent import base_unknown, best_tree, confidence, distribution, mixture, options
from kinship.heritage.family import Family
from kinship.heritage.signals import NAMES, ROOTS, signals
from kinship.heritage.stages import Stages
from tests.kinship.heritage.fitting import Case, Rows, case, fit, restricted
from tests.kinship.heritage.growth import Grown, grow_or_load
from tests.kinship.heritage.kinds import KINDS, grow_or_load_kind

GIVEN, PRESENT, WITHHELD = "base given", "base present", "base withheld"
LLAMAS = "Llamas with merges and copies"
WITHHELD_TIMES, SURE = 3, 0.9


@dataclass(frozen=True)
class Asked:
    """A family as it is asked for: ``arm`` names how, ``case`` is what is known of it, ``truth`` parents by child."""

    arm: str
    case: Case
    truth: dict[int, int | None]


def asked(grown: Grown, folder: Path, seed: int) -> list[Asked]:
    """``grown``, whose files are in ``folder``, in all arms."""
    random = np.random.default_rng(seed)
    names = [member.name for member in grown.members]
    base, kin = names[0], names[1:]
    inner = [name for name in kin if any(name in member.parents for member in grown.members)]
    arms: list[tuple[str, list[str], str | None]] = [(GIVEN, names, base), (PRESENT, names, None)]
    if len(kin) > 1:
        arms.append((WITHHELD, kin, None))
    if inner:
        missing = str(random.choice(inner))
        arms.append((f"{GIVEN}, another missing", [name for name in names if name != missing], base))
    if len(kin) > 3:
        arms.append((f"{WITHHELD}, three", sorted(map(str, random.choice(kin, 3, replace=False))), None))
        two = sorted(map(str, random.choice(kin, 2, replace=False)))
        arms += [(f"{PRESENT}, three", [base, *two], None), (f"{GIVEN}, three", [base, *two], base)]
    arms.append((f"{PRESENT}, two", [base, kin[0]], None))
    return [_ask(arm, grown, folder, here, root) for arm, here, root in arms if len(here) > 1]


def _ask(arm: str, grown: Grown, folder: Path, names: list[str], base: str | None) -> Asked:
    models = [open_checkpoint(folder / f"{name}.safetensors", id=name) for name in names]
    family = Family.of(models, None if base is None else names.index(base), Stages())
    values, roots = signals(family)
    children = family.unexplained
    truth = {child: nearest_ancestor(grown, names, child) for child in children}
    choice = options(values, children, family.parents, [])
    nodes = np.array(choice.nodes)
    case = Case(values[np.ix_(nodes, nodes)], roots[nodes], choice, restricted(choice, truth, []))
    for model in models:
        model.close()
    return Asked(arm, case, truth)


def nearest_ancestor(grown: Grown, names: Sequence[str], child: int) -> int | None:
    """Place in ``names`` of the nearest ancestor that is among them."""
    parents = {member.name: member.parents for member in grown.members}
    line = parents[names[child]]
    while line and line[0] not in names:
        line = parents[line[0]]
    return names.index(line[0]) if line else None


def judged(one: Asked, weights: Rows, odds: Rows) -> list[tuple[float, bool]]:
    """Confidence, as users are shown it, of each edge that ``weights`` (as `fit` has them) tell, and whether it is
    right.
    """
    edges, roots, choice = one.case.edges, one.case.roots, one.case.all
    scores = np.moveaxis(edges @ weights[:, : len(NAMES)].T, -1, 0)
    founding = np.moveaxis(roots @ weights[:, len(NAMES) : -1].T, -1, 0)
    unknown = bool(base_unknown(roots))
    found, _ = mixture(distribution(choice, scores, founding, weights[:, -1] * unknown), odds)
    at = {model: place for place, model in enumerate(choice.nodes)}
    return [
        (confidence(chance, edges[at[parent], at[child]], unknown), one.truth[child] == parent)
        for child, (parent, chance) in best_tree(choice, found.edges, []).items()
        if child in one.truth
    ]


def llamas(folder: Path, seeds: Sequence[int]) -> list[Asked]:
    """Families of `growth`, with merges and copies among them."""
    found = []
    for seed in seeds:
        grown = grow_or_load(seed, folder / str(seed))
        for arm, withheld, given in ((GIVEN, False, True), (PRESENT, False, False), (WITHHELD, True, False)):
            found.append(Asked(arm, *case(grown, folder / str(seed), withheld, given)))
    return found


def training(families: Mapping[str, Sequence[Asked]], left_out: str | None = None) -> list[Case]:
    """Cases to fit on. Most of the small families have their base: those that have not count as often again."""
    found = []
    for name, mine in families.items():
        for one in mine if name != left_out else ():
            found += [one.case] * (WITHHELD_TIMES if one.arm.startswith(WITHHELD) and name != LLAMAS else 1)
    return found


def table(kind: str, arm: str, mine: Sequence[Asked], told: Sequence[tuple[float, bool]]) -> str:
    """A row: edges true, told and right; told with confidence 0.9, and right."""
    true = sum(parent is not None for one in mine for parent in one.truth.values())
    sure = [right for chance, right in told if chance >= SURE]
    row = (kind, arm, true, len(told), sum(right for _, right in told), len(sure), sum(sure))
    return "| " + " | ".join(map(str, row)) + " |"


def draw(told: Mapping[str, Sequence[tuple[float, bool]]], path: Path) -> None:
    """Confidence against the share right, by arm, with the numbers of edges."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0.4, 1], [0.4, 1], color="0.7", linewidth=1, label="as it should be")
    edges = np.array([0.45, 0.6, 0.7, 0.8, 0.9, 1.001])
    for (arm, pairs), marker in zip(told.items(), "os^D", strict=False):
        values = np.array(pairs, dtype=float).reshape(-1, 2)
        places = np.digitize(values[:, 0], edges)
        points = [values[places == place] for place in range(1, len(edges))]
        means = np.array([(*point.mean(0), len(point)) for point in points if len(point)])
        axes.plot(means[:, 0], means[:, 1], marker=marker, label=arm)
        for x, y, count in means:
            axes.annotate(f"{count:.0f}", (x, y), textcoords="offset points", xytext=(5, -11), fontsize=8)
    axes.set(xlabel="confidence", ylabel="share of edges right", xlim=(0.4, 1.02), ylim=(0, 1.04))
    axes.legend(loc="lower right")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="Families by kind and seed; those that are not here are grown.")
    parser.add_argument("--seeds", type=int, default=5, help="Of each kind.")
    parser.add_argument("--llamas", type=int, default=10, help="Families of `growth`, by seeds from 0.")
    parser.add_argument("--diagram", type=Path, help="Where to draw confidence against the share right.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    families = {LLAMAS: llamas(given.folder / "llamas", range(given.llamas))} if given.llamas else {}
    for number, kind in enumerate(KINDS):
        places = [(seed, given.folder / str(number) / str(seed)) for seed in range(given.seeds)]
        families[kind.name] = [one for s, at in places for one in asked(grow_or_load_kind(kind, s, at), at, s)]
    weights, odds, mean = fit(training(families))
    print(f"{mean:.3f} nats a family")
    rows = {name: tuple(pair) for name, pair in zip((*NAMES, *ROOTS), weights.T.round(3).tolist(), strict=False)}
    print("WEIGHTS = {\n" + "".join(f'    "{name}": {pair},\n' for name, pair in rows.items()) + "}")
    print(f"SINGLE = {tuple(weights[:, -1].round(3).tolist())}\nODDS = {tuple(odds.round(3).tolist())}")
    told_by: dict[str, list[tuple[float, bool]]] = {}
    for name, mine in families.items():
        weights, odds, _ = fit(training(families, name))
        for arm in dict.fromkeys(one.arm for one in mine):
            here = [one for one in mine if one.arm == arm]
            told = [pair for one in here for pair in judged(one, weights, odds)]
            told_by.setdefault(arm.partition(",")[0], []).extend(told)
            print(table(name, arm, here, told), flush=True)
    if given.diagram:
        draw(told_by, given.diagram)


if __name__ == "__main__":
    main()
