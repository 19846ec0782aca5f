"""Merges and integer rounding, written out in plain torch: what families are grown with, and nothing under test."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]


def linear(states: list[State], weights: list[float]) -> State:
    return {name: sum(w * s[name] for w, s in zip(weights, states, strict=True)) for name in states[0]}  # type: ignore


def task_arithmetic(base: State, states: list[State], weights: list[float], scale: float) -> State:
    return {
        name: base[name] + scale * sum(w * (s[name] - base[name]) for w, s in zip(weights, states, strict=True))
        for name in base
    }


def slerp(one: State, other: State, t: Callable[[str], float]) -> State:
    """Along the arc of whole tensors, along the line above a cosine of 0.9995."""
    found = {}
    for name in one:
        a, b, at = one[name].double(), other[name].double(), t(name)
        cosine = float((a * b).sum() / (a.norm() * b.norm()))
        if abs(cosine) > 0.9995:
            found[name] = ((1 - at) * a + at * b).float()
        else:
            angle = math.acos(cosine)
            parts = math.sin((1 - at) * angle) * a + math.sin(at * angle) * b
            found[name] = (parts / math.sin(angle)).float()
    return found


def ties(base: State, states: list[State], weights: list[float], density: float, scale: float) -> State:
    """Yadav et al., arXiv 2306.01708: trim, elect signs, take the weighted mean of those that agree."""
    found = {}
    for name in base:
        changes = []
        for state in states:
            change = (state[name] - base[name]).flatten()
            kept = torch.zeros_like(change)
            largest = change.abs().topk(max(1, int(density * change.numel()))).indices
            kept[largest] = change[largest]
            changes.append(kept)
        weighted = torch.stack([w * change for w, change in zip(weights, changes, strict=True)])
        sign = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
        agree = (weighted.sign() == sign).float()
        share = (agree * torch.tensor(weights)[:, None]).sum(0)
        mean = (weighted * agree).sum(0) / torch.where(share == 0, 1.0, share)
        found[name] = base[name] + scale * mean.view(base[name].shape)
    return found


def quantise(state: State, bits: int, layout: str) -> State:
    """Matrices to ``bits``-bit integers and back; ``layout``: one scale a ``row``, a ``tensor`` or a ``group`` of 32.

    Groups have an offset too.
    """
    most = 2 ** (bits - 1) - 1
    found = dict(state)
    for name, tensor in state.items():
        if tensor.dim() != 2 or "embed" in name or "lm_head" in name:
            continue
        if layout == "group" and tensor.numel() % 32 == 0:
            rows = tensor.reshape(-1, 32)
            low, high = rows.min(1, keepdim=True).values, rows.max(1, keepdim=True).values
            step = (high - low) / (2**bits - 1)
            found[name] = (low + step * ((rows - low) / step).round()).view(tensor.shape)
        else:
            step = (tensor.abs().amax(1, keepdim=True) if layout == "row" else tensor.abs().max()) / most
            found[name] = step * (tensor / step).round()
    return found
