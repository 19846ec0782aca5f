"""MaTS solves RegMean's system: the same, where it has gone all the way."""

import torch

from merging.data_driven.regmean import regmean
from merging.methods.mats import matched


def scene(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, rows, 6, generator=generator, dtype=torch.float64)
    vectors = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    return vectors, inputs.mT @ inputs


def test_at_convergence_it_is_the_closed_form() -> None:
    vectors, grams = scene(20)
    weights = [1.0, 2.0, 0.5]
    torch.testing.assert_close(
        matched(vectors, grams, weights, 200), regmean(vectors, grams, weights, 1.0), rtol=1e-9, atol=1e-9
    )


def test_it_takes_as_many_steps_as_there_are_inputs() -> None:
    vectors, grams = scene(20)
    wanted = matched(vectors, grams, [1.0] * 3, 200)
    assert not torch.allclose(matched(vectors, grams, [1.0] * 3, 2), wanted, atol=1e-6)
    torch.testing.assert_close(matched(vectors, grams, [1.0] * 3, 6), wanted, rtol=1e-6, atol=1e-6)


def test_every_step_brings_the_outputs_nearer() -> None:
    vectors, grams = scene(20)

    def distance(steps: int) -> float:
        change = matched(vectors, grams, [1.0] * 3, steps) - vectors
        return float(torch.einsum("poi,pij,poj->", change, grams, change))

    found = [distance(steps) for steps in range(7)]
    assert found == sorted(found, reverse=True)


def test_directions_that_no_data_reached_stay_at_the_average() -> None:
    vectors, grams = scene(1)  # three inputs in all, of six dimensions
    change = matched(vectors, grams, [1.0] * 3, 50) - vectors.mean(dim=0)
    unseen = torch.linalg.svd(grams.sum(dim=0)).U[:, 3:]
    assert (change @ unseen).abs().max() < 1e-9


def test_models_that_agree_are_what_they_agree_on() -> None:
    vectors, grams = scene(20)
    same = vectors[:1].expand(3, -1, -1)
    torch.testing.assert_close(matched(same, grams, [1.0, 2.0, 3.0]), vectors[0])
