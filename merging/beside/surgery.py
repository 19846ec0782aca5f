"""Representation Surgery: a small head for each task that brings a merge's representations near to the task's own."""

from typing import NamedTuple

import torch

from kinship.errors import InvalidConfig, NonFiniteWeights

RANK, STEPS, RATE = 16, 500, 1e-3


class Head(NamedTuple):
    """Takes what a merge has too much out of its representations: ``down`` (r, d), ``up`` (d, r)."""

    down: torch.Tensor
    up: torch.Tensor


def mended(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """``z - up relu(down z)`` of representations (.., d) (Yang et al., arXiv 2402.02705, eq. 5).

    >>> mended(torch.tensor([[2.0, 1.0]]), Head(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0], [0.5]])))
    tensor([[2., 0.]])
    """
    return hidden - (hidden @ head.down.T).relu() @ head.up.T


def representation_gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """The mean over examples of the mean absolute difference of two representations (n, d) (the same, eq. 4)."""
    return float((one.double() - other.double()).abs().mean())


def fit_head(
    merged: torch.Tensor,
    own: torch.Tensor,
    *,
    rank: int = RANK,
    steps: int = STEPS,
    rate: float = RATE,
    seed: int = 0,
) -> Head:
    """The head that brings representations ``merged`` (n, d) near to a model's ``own`` (n, d) of the same tokens.

    Minimises the mean absolute difference by ``steps`` of Adam at ``rate`` over all examples at once, from ``up`` = 0,
    where the head changes nothing, and a ``down`` drawn from ``seed``; of all steps the best is kept, so that on these
    examples the gap never grows. Rank 0 is the identity. fp32; memory: five times the examples; cost: 6 n d r a step.
    Raises `InvalidConfig`, and `NonFiniteWeights` for representations that hold NaN or infinity.
    """
    if merged.shape != own.shape or merged.dim() != 2 or not len(merged):
        raise InvalidConfig(
            f"Representations {list(merged.shape)} and {list(own.shape)} were given; as many of each were expected.",
            hint="Measure both on the same documents; the models must be of one width and one tokenizer.",
        )
    if rank < 0 or steps < 0 or not rate > 0:
        raise InvalidConfig(
            f"A head of rank {rank} cannot be fitted in {steps} steps at rate {rate}.",
            hint="rank and steps: 0 or more; rate: above 0.",
        )
    if not (merged.isfinite().all() and own.isfinite().all()):
        raise NonFiniteWeights("The representations hold NaN or infinity.", hint="Look for a damaged checkpoint.")
    inputs, targets = merged.float(), own.float()
    width = inputs.shape[1]
    down = torch.randn(rank, width, generator=torch.Generator().manual_seed(seed)).to(inputs.device) / width**0.5
    head = Head(down, torch.zeros(width, rank, device=inputs.device))
    best, least = head, float("inf")
    with torch.enable_grad():
        leaves = [part.clone().requires_grad_() for part in head]
        adam = torch.optim.Adam(leaves, lr=rate)
        for step in range(steps + 1 if rank else 0):
            loss = (mended(inputs, Head(*leaves)) - targets).abs().mean()
            if loss.item() < least:
                best, least = Head(*(leaf.detach().clone() for leaf in leaves)), loss.item()
            if step < steps:
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
    return best
