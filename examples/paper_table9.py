"""Replay the main run of Hu et al., "Exploring Model Kinship" (arXiv 2410.12613v3, Table 9).

    python examples/paper_table9.py

The paper merged three fine-tunes of Mistral-7B again and again, by top-k greedy merging (k = 3) and with the added
partner of lowest kinship. Here this project's strategy is told the published scores, and asked at every generation what
it would merge; beside it stands what the paper merged. No weights are read.

The table lists both runs mixed, and gives no parents: those below follow from its scores and merge gains (3-3 to 0.095
only). Pairs that were not merged have no published kinship; `ASSUMED` says what the replay needs of two of them. What
cannot be matched: generation 5, whose gains fit no pair that the rule asks for to better than 0.045; the partners of
generations 4 and 5, which several pairs fit; and that the table follows the run with kinship alone beyond generation 4.
"""

import math
from collections.abc import Mapping

import numpy as np

from search.strategies.base import Context, Individual, Proposal
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.topk import TopKGreedy
from service.answers.gains import Correlation

FOUNDERS = {"MetaMath": 63.72, "Instruct": 61.82, "Open-chat": 66.28}

# Name, average score, parents, kinship (PCC) of the parents.
CHILDREN = (
    ("1-1", 62.17, "MetaMath", "Instruct", 0.01),
    ("1-2", 64.02, "Instruct", "Open-chat", -0.02),
    ("1-3", 66.84, "MetaMath", "Open-chat", 0.05),
    ("2-1", 68.72, "Open-chat", "1-3", 0.93),
    ("2-2", 61.47, "1-2", "1-3", 0.57),
    ("2-3", 61.32, "Open-chat", "1-2", 0.58),
    ("2-exp", 68.11, "Instruct", "1-3", -0.02),
    ("3-1", 68.59, "Open-chat", "2-1", 0.95),
    ("3-2", 67.74, "1-3", "2-1", 0.93),
    ("3-3", 69.06, "2-1", "2-exp", 0.24),
    ("3-4", 68.61, "1-3", "2-exp", 0.32),
    ("3-exp", 68.15, "1-1", "2-1", 0.03),
    ("4-1", 68.51, "2-1", "3-1", 0.98),
    ("4-2", 68.04, "2-1", "3-2", 0.98),
    ("4-3", 68.53, "3-1", "3-2", 0.94),
    ("4-4", 68.75, "2-1", "3-3", 0.54),
    ("4-5", 68.39, "2-1", "3-4", 0.66),
)
NAMES = {frozenset((one, other)): name for name, _, one, other, _ in CHILDREN}
SCORES = FOUNDERS | {name: score for name, score, *_ in CHILDREN}
KINSHIP = {frozenset((one, other)): kinship for *_, one, other, kinship in CHILDREN}

# That the published partner was the least related of its pool (-0.02 in generation 2, 0.03 in generation 3).
ASSUMED = {("1-3", "MetaMath"): 0.5, ("2-1", "1-2"): 0.5}


def replay(
    variant: str, generations: int, pool: str = "previous", more: Mapping[tuple[str, str], float] | None = None
) -> list[list[Proposal]]:
    """What the strategy asks for, by generation; a pair of unknown kinship (``more`` adds some) is never chosen."""
    known = KINSHIP | {frozenset(pair): value for pair, value in (ASSUMED | dict(more or {})).items()}

    def closeness(one: str, other: str) -> float:
        return known.get(frozenset((one, other)), math.nan)

    founders = tuple(Individual(id, 0, score) for id, score in FOUNDERS.items())
    base = Individual("Mistral-7B", 0, 0.0)
    search = TopKGreedy(
        StrategySettings.model_validate({"name": "topk", "variant": variant, "k": 3, "partner_pool": pool}),
        MergeSettings(),
        Context(base, founders, (), closeness, closeness, lambda: np.zeros((0, 0))),
    )
    asked: list[list[Proposal]] = []
    for generation in range(1, generations + 1):
        asked.append(search.ask())
        if generation < generations:
            born = [(name_of(proposal), proposal) for proposal in asked[-1]]
            search.tell([Individual(id, generation, SCORES[id], proposal.parents) for id, proposal in born])
    return asked


def name_of(proposal: Proposal) -> str:
    """The published child of these parents; the pair itself where none was published."""
    return NAMES.get(frozenset(proposal.parents), "+".join(proposal.parents))


def gain(child: str) -> float:
    """Score less the mean of the parents' scores."""
    parents = next(pair for pair, name in NAMES.items() if name == child)
    return SCORES[child] - sum(SCORES[parent] for parent in parents) / len(parents)


def main() -> None:
    """Print, of both variants, what is asked for at each generation beside what was published."""
    for variant in ("vanilla", "kinship"):
        print(f"\nTop-3 greedy merging, {variant}")
        print(f"{'child':16}{'parents':26}{'chosen as':14}{'kinship':>8}{'score':>8}{'gain':>8}")
        for proposals in replay(variant, 4):
            for proposal in proposals:
                child = name_of(proposal)
                line = f"{child:16}{' x '.join(proposal.parents):26}{proposal.role:14}"
                told = child in SCORES
                kinship = KINSHIP.get(frozenset(proposal.parents), math.nan)
                print(line + (f"{kinship:8.2f}{SCORES[child]:8.2f}{gain(child):+8.2f}" if told else "  not published"))
    pairs = [(kinship, gain(name)) for name, *_, kinship in CHILDREN]
    print(f"\nKinship against merge gain over these {len(pairs)} merges: {Correlation.of(pairs).words}.")
    sizes = Correlation.of((kinship, abs(value)) for kinship, value in pairs)
    print(f"Against its size, whatever its sign: {sizes.words}.")


if __name__ == "__main__":
    main()
