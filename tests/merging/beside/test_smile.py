"""SMILE's closed forms on one linear layer."""

import pytest
import torch

from merging.beside.smile import Expert, expert_of, routed, shares

INPUTS = torch.randn(7, 6, generator=torch.Generator().manual_seed(9))


def change(seed: int, rank: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if rank is None:
        return torch.randn(5, 6, generator=generator)
    return torch.randn(5, rank, generator=generator) @ torch.randn(rank, 6, generator=generator)


def test_one_expert_of_full_rank_is_the_change() -> None:
    delta, bias = change(1), change(2)[:, 0]
    expert = expert_of(delta, rank=100, gate_rank=1, bias=bias)
    assert expert.left.shape == (5, 5)
    assert routed(INPUTS, [expert], 1) == pytest.approx(INPUTS @ delta.T + bias, abs=1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_of_lower_rank_it_is_the_truncated_decomposition(rank: int) -> None:
    delta = change(1)
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    expert = expert_of(delta, rank, gate_rank=2)
    nearest = (u[:, :rank] * s[:rank]) @ vh[:rank]
    assert expert.left.double() @ expert.right.double() == pytest.approx(nearest, abs=1e-5)
    kept = min(2, rank)
    assert (expert.gate.double() @ vh[:kept].T).abs() == pytest.approx(torch.eye(kept), abs=1e-5)


@pytest.mark.parametrize("chosen", [1, 2, 3])
def test_an_input_goes_where_it_projects_the_most(chosen: int) -> None:
    """Written out in float64, input by input (arXiv 2408.10174, eq. 8 and 9)."""
    deltas = [change(seed) for seed in range(3)]
    experts = [expert_of(delta, rank=2, gate_rank=2) for delta in deltas]
    told = routed(INPUTS, experts, chosen).double()
    for row, found in zip(INPUTS.double(), told, strict=True):
        parts = [torch.linalg.svd(delta.double(), full_matrices=False) for delta in deltas]
        lengths = [float((vh[:2] @ row).norm()) for _, _, vh in parts]
        best = sorted(range(3), key=lambda number: -lengths[number])[:chosen]
        weights = torch.tensor([lengths[number] for number in best], dtype=torch.float64).softmax(0)
        expected = sum(
            weight * ((parts[number][0][:, :2] * parts[number][1][:2]) @ (parts[number][2][:2] @ row))
            for weight, number in zip(weights, best, strict=True)
        )
        assert found == pytest.approx(expected, abs=1e-5)


def test_shares_add_up_to_one_and_do_not_mind_the_order_of_experts() -> None:
    gates = [expert_of(change(seed), 2, 2).gate for seed in range(3)]
    for chosen in (1, 2, 3, 9):
        found = shares(INPUTS, gates, chosen)
        assert found.sum(dim=-1) == pytest.approx(torch.ones(7))
        assert ((found > 0).sum(dim=-1) == min(chosen, 3)).all()
        assert shares(INPUTS, gates[::-1], chosen) == pytest.approx(found.flip(-1))


def test_equal_experts_are_one() -> None:
    expert = expert_of(change(1), 3, 1)
    assert routed(INPUTS, [expert] * 3, 2) == pytest.approx(routed(INPUTS, [expert], 1), abs=1e-5)


def test_a_layer_that_a_model_left_alone_adds_nothing_and_draws_nobody() -> None:
    idle, other = expert_of(torch.zeros(5, 6), 3, 1), expert_of(change(1), 3, 1)
    assert [part.shape for part in idle[:3]] == [(5, 0), (0, 6), (0, 6)]
    assert not routed(INPUTS, [idle], 1).any()
    assert shares(INPUTS, [idle.gate, other.gate], 1)[:, 1] == pytest.approx(torch.ones(7))


def test_it_keeps_the_shape_of_batches() -> None:
    expert: Expert = expert_of(change(1), 3, 1)
    batch = INPUTS.reshape(1, 7, 6)
    assert routed(batch, [expert, expert], 1).shape == (1, 7, 5)
