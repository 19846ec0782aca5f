"""Pruning by activations, against the sum written out entry by entry."""

import pytest
import torch

from merging.methods.wanda import wanda
from merging.registry import Measured


def test_it_is_the_sum_of_what_matters_most_in_each_row() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    inputs = torch.randn(2, 20, 8, generator=generator, dtype=torch.float64)
    weight, density = [1.0, 0.5], [0.25, 0.5]
    wanted = torch.zeros(3, 8, dtype=torch.float64)
    for model in range(2):
        for row in range(3):
            importance = [float(vectors[model, row, j].abs() * inputs[model, :, j].norm()) for j in range(8)]
            best = sorted(range(8), key=lambda j: -importance[j])[: int(8 * density[model])]
            for place in best:
                wanted[row, place] += 0.7 * weight[model] * vectors[model, row, place]
    found = wanda(vectors, Measured(inputs.mT @ inputs), weight=weight, density=density, lambda_=0.7)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("measured", [None, Measured(torch.eye(8, dtype=torch.float64).expand(2, 8, 8))])
def test_with_everything_kept_it_is_task_arithmetic(measured: Measured | None) -> None:
    vectors = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = wanda(vectors, measured, weight=[1.0, 2.0], density=[1.0, 1.0])
    torch.testing.assert_close(found, vectors[0] + 2 * vectors[1])


def test_sizes_of_inputs_alone_decide_where_changes_are_equal() -> None:
    vectors = torch.ones(1, 2, 4)
    grams = torch.diag(torch.tensor([1.0, 9.0, 4.0, 0.0]))[None]
    found = wanda(vectors, Measured(grams), weight=[1.0], density=[0.5])
    assert found.tolist() == [[0.0, 1.0, 1.0, 0.0]] * 2
