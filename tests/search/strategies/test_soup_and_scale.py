"""Greedy soup and the line search, against what can be worked out by hand."""

import numpy as np
import pytest

from search.strategies.base import Context, Individual, Proposal
from search.strategies.baselines import GreedySoup
from search.strategies.scale import ThenScale, next_scale


def context(base: float = 0.0, **scores: float | None) -> Context:
    people = tuple(Individual(id, 0, score) for id, score in scores.items())
    return Context(
        Individual("base", 0, base), people, (), lambda a, b: 0.0, lambda a, b: 0.0, lambda: np.zeros((0, 0))
    )


def child(proposal: Proposal, score: float | None, id: str = "1-1", complete: bool = True) -> Individual:
    return Individual(id, 1, score, proposal.parents, complete=complete)


def test_founders_join_the_soup_from_the_best_down_while_it_improves() -> None:
    soup = GreedySoup(context(a=0.2, b=0.4, c=0.3, d=0.1))
    asked = []
    for number, score in enumerate((0.5, 0.45, 0.6)):
        (proposal,) = soup.ask()
        asked.append(proposal.parents)
        soup.tell([child(proposal, score, f"{number + 1}-1")])
    assert asked == [("b", "c"), ("b", "c", "a"), ("b", "c", "d")]
    assert soup.ask() == []
    assert soup.members == ["b", "c", "d"]
    assert soup.best is not None
    assert soup.best.id == "3-1"


@pytest.mark.parametrize(("score", "complete"), [(None, True), (0.9, False), (0.4, True)])
def test_a_soup_that_failed_was_stopped_early_or_is_no_better_changes_nothing(
    score: float | None, complete: bool
) -> None:
    soup = GreedySoup(context(a=0.4, b=0.3, c=0.2))
    soup.tell([child(soup.ask()[0], score, complete=complete)])
    assert soup.members == ["a"]
    assert soup.ask()[0].parents == ("a", "c")


@pytest.mark.parametrize("top", [0.5, 1.2, 1.7, 2.6])
def test_the_top_of_a_parabola_is_found(top: float) -> None:
    def score(scale: float) -> float:
        return 1.0 - (scale - top) ** 2

    line = ThenScale(GreedySoup(context(score(0.0), a=score(1.0))), context(score(0.0), a=score(1.0)), 6)
    found = {1.0: score(1.0)}
    for step in range(6):
        proposals = line.ask()
        if not proposals:
            break
        scale = proposals[0].recipe.parameters["scale"]
        assert isinstance(scale, float)
        assert scale not in found
        found[scale] = score(scale)
        line.tell([child(proposals[0], found[scale], f"{step + 1}-1")])
    assert line.ask() == []
    assert abs(max(found, key=lambda scale: found[scale]) - top) < 0.05


def test_the_line_goes_on_where_evaluations_fail_and_ends() -> None:
    line = ThenScale(GreedySoup(context(0.0, a=0.5)), context(0.0, a=0.5), 4)
    asked: list[object] = []
    while proposals := line.ask():
        asked.append(proposals[0].recipe.parameters["scale"])
        line.tell([child(proposals[0], None, f"{len(asked)}-1")])
    assert asked == [1.5, 0.75, 0.5]


def test_the_winner_of_the_search_before_is_what_is_scaled() -> None:
    line = ThenScale(GreedySoup(context(0.0, a=0.5, b=0.4)), context(0.0, a=0.5, b=0.4), 2)
    line.tell([child(line.ask()[0], 0.6)])
    (proposal,) = line.ask()
    assert proposal.parents == ("1-1",)
    assert proposal.recipe.base_model == "base"


def test_there_is_nothing_left_where_the_next_scale_makes_no_difference() -> None:
    assert next_scale({0.0: 0.0, 1.0: 1.0, 1.5: 0.75, 0.75: 0.9375}, [1.5, 0.75]) is None
