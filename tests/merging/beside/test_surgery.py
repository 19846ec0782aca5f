"""The head of Representation Surgery: the paper's equation, what it starts from and what it makes small."""

import pytest
import torch

from kinship.errors import InvalidConfig, NonFiniteWeights
from merging.beside.surgery import Head, fit_head, mended, representation_gap


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gap_after(hidden: torch.Tensor, own: torch.Tensor, head: Head) -> float:
    return representation_gap(mended(hidden, head), own)


def test_it_is_the_papers_equation() -> None:
    hidden, head = normal(5, 4), Head(normal(3, 4, seed=1), normal(4, 3, seed=2))
    for row, told in zip(hidden.double(), mended(hidden, head).double(), strict=True):
        inner = [max(0.0, float(unit @ row)) for unit in head.down.double()]
        expected = row - head.up.double() @ torch.tensor(inner, dtype=torch.float64)
        assert told == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("rank", "steps"), [(0, 50), (4, 0)])
def test_rank_0_and_step_0_change_nothing(rank: int, steps: int) -> None:
    hidden = normal(6, 4)
    head = fit_head(hidden, normal(6, 4, seed=1), rank=rank, steps=steps)
    assert (head.down.shape, head.up.shape) == ((rank, 4), (4, rank))
    assert mended(hidden, head).equal(hidden)


def test_what_can_be_said_by_a_head_is_found() -> None:
    """A bias towards one direction that the merge has too much of, on other examples of the same kind, too."""
    truth = Head(normal(1, 8, seed=3), 0.5 * normal(8, 1, seed=4))
    seen, unseen = normal(400, 8, seed=5), normal(400, 8, seed=6)
    head = fit_head(seen, mended(seen, truth), rank=4, steps=800, rate=1e-2)
    before = representation_gap(unseen, mended(unseen, truth))
    assert gap_after(unseen, mended(unseen, truth), head) < 0.1 * before


def test_the_gap_never_grows_on_what_it_is_fitted_to() -> None:
    hidden, own = normal(50, 6), normal(50, 6, seed=1)
    head = fit_head(hidden, own, rank=2, steps=20, rate=10.0)  # of which no step is a good one
    assert gap_after(hidden, own, head) <= representation_gap(hidden, own)


def test_equal_seeds_give_equal_heads_whatever_was_drawn_before() -> None:
    hidden, own = normal(50, 6), normal(50, 6, seed=1)
    heads = []
    for seed in (0, 0, 1):
        torch.randn(3)
        heads.append(fit_head(hidden, own, rank=2, steps=5, seed=seed))
    assert heads[0].down.equal(heads[1].down)
    assert heads[0].up.equal(heads[1].up)
    assert not heads[0].down.equal(heads[2].down)


def test_it_is_fitted_where_gradients_are_off() -> None:
    hidden, own = normal(50, 6), normal(50, 6, seed=1)
    with torch.no_grad():
        head = fit_head(hidden, own, rank=2, steps=5)
    assert not head.up.requires_grad
    assert head.up.any()


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"\[5, 4\] and \[5, 6\]"):
        fit_head(normal(5, 4), normal(5, 6))
    with pytest.raises(InvalidConfig, match="rank -1"):
        fit_head(normal(5, 4), normal(5, 4), rank=-1)
    with pytest.raises(NonFiniteWeights, match="NaN"):
        fit_head(normal(5, 4) / 0, normal(5, 4))
