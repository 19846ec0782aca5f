"""EMR-Merging beside the paper's elect, mask and rescale, entry by entry."""

import numpy as np
import pytest
import torch

from kinship.errors import InvalidConfig
from merging.methods.emr import emr, mask, rescale, restore, unify
from merging.registry import get_method

Array = np.ndarray


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def elected(vectors: torch.Tensor) -> Array:
    unified = []
    for column in vectors.reshape(len(vectors), -1).double().numpy().T:
        sign = np.sign(column.sum())
        unified.append(sign * max((abs(value) for value in column if np.sign(value) == sign), default=0.0))
    return np.array(unified).reshape(vectors.shape[1:])


def written_out(vectors: torch.Tensor, task: int) -> Array:
    own, unified = vectors[task].double().numpy(), elected(vectors)
    kept = own * unified > 0
    return np.asarray(np.abs(own).sum() / np.abs(kept * unified).sum() * kept * unified)


@pytest.mark.parametrize("shape", [(20, 30), (50,), (4, 5, 6)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_the_paper_has_it(shape: tuple[int, ...], count: int) -> None:
    vectors = numbers(count, *shape)
    np.testing.assert_allclose(unify(vectors).numpy(), elected(vectors), rtol=1e-7)
    for task in range(count):
        np.testing.assert_allclose(emr(vectors.clone(), task=task).numpy(), written_out(vectors, task), rtol=1e-6)


def test_by_the_registry() -> None:
    vectors = numbers(3, 6, 4)
    got = get_method("emr").tensor(vectors.clone(), {"task": 1}, has_base=True)
    np.testing.assert_allclose(got.numpy(), written_out(vectors, 1), rtol=1e-6)


def test_the_factor_of_a_whole_model_is_over_all_its_tensors() -> None:
    """The paper's rescaler; the tensors of a task laid end to end have the same."""
    first, second = numbers(3, 20, 30), 10 * numbers(3, 50, seed=1)
    both = torch.cat([first.reshape(3, -1), second], dim=1)
    for task in range(3):
        factor = rescale([first[task], second[task]], [unify(first), unify(second)])
        assert factor == pytest.approx(rescale([both[task]], [unify(both)]), rel=1e-12)
        got = restore(unify(second), mask(second[task], unify(second)), factor)
        np.testing.assert_allclose(got.numpy(), written_out(both, task)[600:], rtol=1e-6)


def test_one_model_is_left_as_it_is() -> None:
    vector = numbers(1, 20, 30)
    torch.testing.assert_close(emr(vector.clone(), task=0), vector[0], rtol=1e-6, atol=0)


def test_equal_models_are_left_as_they_are() -> None:
    vector = numbers(20, 30)
    for task in range(3):
        torch.testing.assert_close(emr(vector.repeat(3, 1, 1), task=task), vector, rtol=1e-6, atol=0)


def test_updates_that_do_not_overlap_are_all_restored() -> None:
    vectors = torch.zeros(3, 30)
    for task in range(3):
        vectors[task, task::3] = numbers(10, seed=task)
    for task in range(3):
        torch.testing.assert_close(emr(vectors.clone(), task=task), vectors[task], rtol=1e-6, atol=0)


def test_a_restored_vector_has_its_signs_and_its_size() -> None:
    vectors = numbers(4, 40, 30)
    for task in range(4):
        got = emr(vectors.clone(), task=task)
        assert (got * vectors[task] >= 0).all()
        assert float(got.abs().double().sum()) == pytest.approx(float(vectors[task].abs().double().sum()), rel=1e-5)


def test_unified_magnitudes_bound_those_of_the_elected_sign() -> None:
    vectors = numbers(4, 40, 30)
    unified = unify(vectors)
    agreeing = vectors * unified > 0
    assert (vectors.abs() <= unified.abs())[agreeing].all()
    assert (unified.sign() == vectors.sum(dim=0).sign()).all()


def test_the_order_of_models_changes_nothing_but_the_numbers_of_tasks() -> None:
    vectors = (8 * numbers(3, 50)).round()  # whole numbers add up in any order
    assert torch.equal(unify(vectors[[2, 0, 1]]), unify(vectors))
    assert torch.equal(emr(vectors[[2, 0, 1]], task=0), emr(vectors.clone(), task=2))


@pytest.mark.parametrize("factor", [2.0**-20, 1024.0, -2.0])
def test_scaling_all_models_scales_the_result(factor: float) -> None:
    vectors = numbers(3, 20, 10)
    torch.testing.assert_close(emr(factor * vectors, task=1), factor * emr(vectors.clone(), task=1))


def test_zero_vectors() -> None:
    assert not emr(torch.zeros(2, 3, 4), task=0).any()
    vectors = torch.stack([torch.zeros(3, 4), numbers(3, 4)])
    assert not emr(vectors.clone(), task=0).any()
    torch.testing.assert_close(emr(vectors.clone(), task=1), vectors[1], rtol=1e-6, atol=0)


def test_a_task_outvoted_everywhere_is_lost() -> None:
    vectors = torch.stack([-torch.ones(5), 3 * torch.ones(5)])
    assert not emr(vectors.clone(), task=0).any()
    assert emr(torch.stack([torch.ones(5), -torch.ones(5)]), task=0).tolist() == [0.0] * 5


def test_scalars() -> None:
    assert emr(torch.tensor([2.0, 3.0]), task=0) == pytest.approx(2.0)


@pytest.mark.parametrize("task", [3, -1])
def test_a_task_that_is_not_there_is_refused(task: int) -> None:
    with pytest.raises(InvalidConfig, match=f"task {task}.*3 models"):
        emr(numbers(3, 4), task=task)
