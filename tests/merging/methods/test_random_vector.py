"""The random task vector: as long as the model's, of no direction, the same from the same seed."""

import numpy as np
import pytest
import torch

from merging.methods.random_vector import random_vector


def drawn(vector: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return random_vector(vector[None], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(300, 70), (5,), (1,), (3, 2, 4)])
@pytest.mark.parametrize("size", [1e-12, 1e-3, 1e6])
def test_it_is_as_long_as_the_vector_it_stands_for(shape: tuple[int, ...], size: float) -> None:
    vector = size * torch.randn(shape, generator=torch.Generator().manual_seed(3))
    found = drawn(vector)
    assert (found.shape, found.dtype) == (vector.shape, torch.float32)
    assert float(found.double().norm()) == pytest.approx(float(vector.double().norm()), rel=2e-7)


def test_its_direction_knows_nothing_of_the_vector_and_its_elements_are_normal() -> None:
    vector = torch.randn(200_000, generator=torch.Generator().manual_seed(3)) ** 3
    found = drawn(vector).double().numpy()
    cosine = found @ vector.double().numpy() / (np.linalg.norm(found) * float(vector.double().norm()))
    assert abs(cosine) < 5 / np.sqrt(found.size)
    scaled = found / found.std()
    assert abs(np.mean(scaled**4) - 3.0) < 0.1  # of the normal distribution
    assert abs(np.mean(scaled)) < 5 / np.sqrt(found.size)


def test_the_same_seed_draws_the_same_and_another_one_another() -> None:
    vector = torch.ones(64)
    assert torch.equal(drawn(vector, 1), drawn(vector, 1))
    assert not torch.equal(drawn(vector, 1), drawn(vector, 2))


@pytest.mark.parametrize("shape", [(4, 4), (0, 3)])
def test_what_was_not_trained_stays(shape: tuple[int, ...]) -> None:
    assert torch.equal(drawn(torch.zeros(shape)), torch.zeros(shape))
