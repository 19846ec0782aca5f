"""Consensus merging beside the paper's rule, entry by entry."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.methods.consensus import consensus
from merging.registry import get_method


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def written_out(vectors: torch.Tensor, threshold: list[float], agree: int) -> np.ndarray:
    columns = vectors.reshape(len(vectors), -1).double().numpy().T
    merged = []
    for column in columns:
        total = sum(column)
        users = sum(abs(own) >= factor * abs(total - own) for own, factor in zip(column, threshold, strict=True))
        merged.append(total if users >= agree else 0.0)
    return np.array(merged).reshape(vectors.shape[1:])


@pytest.mark.parametrize("shape", [(40, 30), (50,), (4, 5, 6), ()])
@pytest.mark.parametrize("agree", [0, 1, 2, 3])
@pytest.mark.parametrize("threshold", [[0.4, 0.4, 0.4], [0.2, 0.6, 1.5]])
def test_as_the_paper_has_it(shape: tuple[int, ...], agree: int, threshold: list[float]) -> None:
    vectors = numbers(3, *shape)
    want = written_out(vectors, threshold, agree)
    got = consensus(vectors.clone(), threshold=threshold, agree=agree)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)
    if len(shape) == 2 and agree in (2, 3):
        assert 0 < (want == 0).mean() < 1


def test_lambda_is_the_factor_of_the_result() -> None:
    vectors = numbers(3, 6, 4)
    values = {"threshold": [0.4] * 3, "agree": 2, "lambda": 0.3}
    got = get_method("consensus").tensor(vectors.clone(), values, has_base=True)
    np.testing.assert_allclose(got.numpy(), 0.3 * written_out(vectors, [0.4] * 3, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("threshold", "agree"), [(0.4, 0), (0.0, 3)])
def test_where_nothing_is_dropped_it_is_the_sum(threshold: float, agree: int) -> None:
    vectors = numbers(3, 20, 10)
    assert torch.equal(consensus(vectors.clone(), threshold=[threshold] * 3, agree=agree), vectors.sum(dim=0))


def test_more_agreement_than_models_leaves_the_base() -> None:
    assert not consensus(numbers(3, 20, 10), threshold=[0.1] * 3, agree=4).any()
    assert not consensus(numbers(1, 20, 10), threshold=[0.1], agree=2).any()


def test_one_model_alone_is_left_as_it_is() -> None:
    vector = numbers(1, 20, 10)
    assert torch.equal(consensus(vector.clone(), threshold=[0.4], agree=1), vector[0])


@pytest.mark.parametrize(("threshold", "kept"), [(0.49, True), (0.51, False)])
def test_equal_models_agree_up_to_one_over_the_others(threshold: float, kept: bool) -> None:
    """Of 3 equal models the rest is twice each, so each uses an entry where lambda <= 1/2."""
    vector = numbers(1, 20, 10)
    got = consensus(vector.repeat(3, 1, 1), threshold=[threshold] * 3)
    torch.testing.assert_close(got, 3 * vector[0] if kept else torch.zeros(20, 10))


def test_selfish_and_catastrophic_weights_are_dropped() -> None:
    """Used by one alone; used by none (each small beside the rest); used by two."""
    vectors = torch.tensor([[9.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.1, 1.0, 0.0]])
    assert consensus(vectors, threshold=[0.6] * 3).tolist() == [0.0, 0.0, 4.0]
    assert consensus(vectors, threshold=[0.6] * 3, agree=1).tolist() == [pytest.approx(9.1), 0.0, 4.0]


@given(seed=st.integers(0, 1000), factor=st.sampled_from([2.0**-20, 4.0, -8.0]), turn=st.integers(0, 2))
@settings(deadline=None, max_examples=30)
def test_scale_and_order(seed: int, factor: float, turn: int) -> None:
    """Powers of two commute with rounding; whole numbers add up in any order."""
    vectors, threshold = (8 * numbers(3, 30, seed=seed)).round(), [0.25, 0.5, 0.75]
    want = consensus(vectors.clone(), threshold=threshold)
    assert torch.equal(consensus(factor * vectors, threshold=threshold), factor * want)
    order = [(i + turn) % 3 for i in range(3)]
    assert torch.equal(consensus(vectors[order], threshold=[threshold[i] for i in order]), want)


def test_zero_vectors_stay_zero() -> None:
    assert not consensus(torch.zeros(2, 3, 4), threshold=[0.4, 0.4]).any()
