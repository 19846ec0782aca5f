"""The strategy replays the main run of Hu et al., arXiv 2410.12613v3, Table 9 (Mistral-7B).

The table lists the vanilla run and the run with kinship mixed, a child of both under one name, so each variant is told
the scores of the children that it asks for itself. It gives no parents: those below follow from scores and gains.

What cannot be matched:
- 4-6 and 5-1: their published gain fits 3-3+3-4 and 3-3+4-6, which the rule asks for, only to 0.045.
- 5-3: the rule asks for 4-4+4-6, whose published gain is 0.11 off.
- 4-exp and 5-exp: several pairs fit their gain; kinship of 5-exp is 0.59 here and 0.53 in the first version's appendix.
- Beyond generation 4 the table follows the run with kinship only, though the top 3 of the vanilla run did change in
  generation 4 (3-2 gave way to 4-3), so that Algorithm 1 would have gone on.
- 3-3 fits 2-1+2-exp to 0.095 only; it is matched here because it is one of the three pairs that the rule leaves.
"""

import math
from collections.abc import Mapping

import pytest

from search.strategies.base import Individual, Proposal
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.topk import TopKGreedy
from tests.search.strategies.test_topk import context

FOUNDERS = {"MetaMath": 63.72, "Instruct": 61.82, "Open-chat": 66.28}

# Name, average score, parents.
CHILDREN = [
    ("1-1", 62.17, "MetaMath", "Instruct"),
    ("1-2", 64.02, "Instruct", "Open-chat"),
    ("1-3", 66.84, "MetaMath", "Open-chat"),
    ("2-1", 68.72, "Open-chat", "1-3"),
    ("2-2", 61.47, "1-2", "1-3"),
    ("2-3", 61.32, "Open-chat", "1-2"),
    ("2-exp", 68.11, "Instruct", "1-3"),
    ("3-1", 68.59, "Open-chat", "2-1"),
    ("3-2", 67.74, "1-3", "2-1"),
    ("3-3", 69.06, "2-1", "2-exp"),
    ("3-4", 68.61, "1-3", "2-exp"),
    ("3-exp", 68.15, "1-1", "2-1"),
    ("4-1", 68.51, "2-1", "3-1"),
    ("4-2", 68.04, "2-1", "3-2"),
    ("4-3", 68.53, "3-1", "3-2"),
    ("4-4", 68.75, "2-1", "3-3"),
    ("4-5", 68.39, "2-1", "3-4"),
]
NAMES = {frozenset((one, other)): name for name, _, one, other in CHILDREN}
SCORES = {name: score for name, score, _, _ in CHILDREN}

# Kinship (PCC) of the pairs that were merged, as published.
PUBLISHED_KINSHIP = {
    "1-1": 0.01, "1-2": -0.02, "1-3": 0.05, "2-1": 0.93, "2-2": 0.57, "2-3": 0.58, "2-exp": -0.02, "3-1": 0.95,
    "3-2": 0.93, "3-3": 0.24, "3-4": 0.32, "3-exp": 0.03, "4-1": 0.98, "4-2": 0.98, "4-3": 0.94, "4-4": 0.54,
    "4-5": 0.66,
}  # fmt: skip

# Pairs that were not merged have no published kinship. The replay needs that the published partner was the least
# related of its pool (-0.02 in generation 2, 0.03 in generation 3); these two values say no more than that.
ASSUMED_KINSHIP = {("1-3", "MetaMath"): 0.5, ("2-1", "1-2"): 0.5}


def replay(
    variant: str, generations: int, pool: str = "previous", more: Mapping[tuple[str, str], float] | None = None
) -> list[list[Proposal]]:
    """What the strategy asks for, by generation; an unknown pair has no kinship and is never chosen."""
    known = {pair: PUBLISHED_KINSHIP[name] for pair, name in NAMES.items()}
    known |= {frozenset(pair): value for pair, value in (ASSUMED_KINSHIP | dict(more or {})).items()}
    search = TopKGreedy(
        StrategySettings.model_validate({"name": "topk", "variant": variant, "k": 3, "partner_pool": pool}),
        MergeSettings(),
        context(
            [Individual(id, 0, score) for id, score in FOUNDERS.items()],
            lambda one, other: known.get(frozenset((one, other)), math.nan),
        ),
    )
    asked: list[list[Proposal]] = []
    for generation in range(1, generations + 1):
        asked.append(search.ask())
        if generation < generations:
            names = [NAMES[frozenset(proposal.parents)] for proposal in asked[-1]]
            search.tell(
                [
                    Individual(name, generation, SCORES[name], proposal.parents)
                    for name, proposal in zip(names, asked[-1], strict=True)
                ]
            )
    return asked


def names(proposals: list[Proposal], role: str = "greedy") -> set[str]:
    """The published children of these proposals; a pair that was not published by its parents."""
    pairs = [proposal.parents for proposal in proposals if proposal.role == role]
    return {NAMES.get(frozenset(pair), "+".join(pair)) for pair in pairs}


def test_the_vanilla_run() -> None:
    asked = replay("vanilla", 4)
    assert [names(batch) for batch in asked] == [
        {"1-1", "1-2", "1-3"},
        {"2-1", "2-2", "2-3"},
        {"3-1", "3-2"},
        {"4-1", "4-2", "4-3"},
    ]
    assert {proposal.role for batch in asked for proposal in batch} == {"greedy"}


def test_the_run_with_kinship() -> None:
    asked = replay("kinship", 3)
    assert [names(batch) for batch in asked] == [
        {"1-1", "1-2", "1-3"},
        {"2-1", "2-2", "2-3"},
        {"3-2", "3-3", "3-4"},
    ]
    assert [names(batch, "exploration") for batch in asked] == [set(), {"2-exp"}, {"3-exp"}]
    assert [proposal.parents for batch in asked for proposal in batch if proposal.role == "exploration"] == [
        ("1-3", "Instruct"),
        ("2-1", "1-1"),
    ]


def test_the_fourth_generation_with_kinship() -> None:
    asked = replay("kinship", 4)
    assert names(asked[3]) == {"4-4", "4-5", "3-3+3-4"}
    assert names(asked[3], "exploration") == set()  # the table has no kinship of 3-3 to any of generation 2


def test_the_assumption_is_needed() -> None:
    other_partner = replay("kinship", 2, more={("1-3", "MetaMath"): -0.03})
    assert names(other_partner[1], "exploration") == {"1-3+MetaMath"}


@pytest.mark.parametrize("pool", ["all", "outside"])
def test_the_other_pools_ask_for_the_same_in_generation_2_unless_a_child_is_less_related(pool: str) -> None:
    # They add 1-1 to the partners of 1-3; both descend from MetaMath, so -0.02 is out of reach for weights like these,
    # but the table does not say so.
    assert names(replay("kinship", 2, pool, {("1-3", "1-1"): 0.5})[1], "exploration") == {"2-exp"}
    assert names(replay("kinship", 2, pool, {("1-3", "1-1"): -0.03})[1], "exploration") == {"1-3+1-1"}


@pytest.mark.parametrize("pool", ["all", "outside"])
def test_the_other_pools_do_not_ask_for_the_partner_published_in_generation_3(pool: str) -> None:
    # Both parents of 2-1 have kinship -0.02 to Instruct (1-2 and 2-exp), so an average of theirs has it too, up to a
    # positive factor; below the 0.03 of 1-1 in any case. Only the pool `previous` leaves Instruct out.
    to_instruct = {("2-1", "Instruct"): -0.02, ("1-3", "1-1"): 0.5}
    assert names(replay("kinship", 3, pool, to_instruct)[2], "exploration") == {"2-1+Instruct"}
    assert names(replay("kinship", 3, "previous", to_instruct)[2], "exploration") == {"3-exp"}
