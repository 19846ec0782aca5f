"""The strategy replays the main run of Hu et al., arXiv 2410.12613v3, Table 9 (Mistral-7B): `examples/paper_table9.py`.

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

import runpy
from pathlib import Path

import pytest

from search.strategies.base import Proposal

PAPER = runpy.run_path(str(Path(__file__).parents[2] / "examples/paper_table9.py"))
NAMES, replay = PAPER["NAMES"], PAPER["replay"]


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


def test_the_published_gains_follow_from_scores_and_parents() -> None:
    # Table 3 of the paper; 3-3 fits to 0.095.
    published = {
        "1-1": -0.60, "1-2": -0.03, "1-3": 1.84, "2-1": 2.16, "2-2": -3.96, "2-3": -3.83, "3-1": 1.09, "3-2": -0.04,
        "3-4": 1.13, "4-1": -0.14, "4-2": -0.19, "4-3": 0.37, "4-4": -0.14, "4-5": -0.27,
    }  # fmt: skip
    for child, gain in published.items():
        assert PAPER["gain"](child) == pytest.approx(gain, abs=0.011)


def test_the_example_prints_both_runs(capsys: pytest.CaptureFixture[str]) -> None:
    PAPER["main"]()
    shown = capsys.readouterr().out
    assert shown.count("Top-3 greedy merging") == 2
    assert "2-exp           1-3 x Instruct            exploration      -0.02   68.11   +3.78" in shown
    assert "3-3+3-4" in shown
    assert "n = 17" in shown
