"""Permutation alignment: the same network with its units in the order that another network has them.

Networks trained from different starts may do the same with their units in another order, and then cannot be averaged.
Git re-basin's weight matching (Ainsworth et al., arXiv 2209.04836) finds the permutations, which do not change what a
network computes, under which its weights are most like the other's. `merging.rebasin.symmetries` says which there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kinship.errors import MismatchedModels, NonFiniteWeights

Tensors = Mapping[str, torch.Tensor]
Order = NDArray[np.int64]  # (n) the unit that comes to each place

# A new order must raise the similarity by more than fp32 rounds it, or equals could be exchanged for ever.
_PROGRESS = 1e-7


@dataclass(frozen=True)
class Slot:
    """Where units lie in a tensor: ``width`` consecutive indices each, along ``axis``."""

    tensor: str
    axis: int
    width: int = 1


@dataclass(frozen=True)
class Symmetry:
    """``units`` that can change places without changing the network, if they do so in all their ``slots`` at once.

    A unit may itself have ``members`` that can change places within it, lying in ``member_slots`` one unit after the
    other: attention heads that share keys and values. Orders are of members: (units * members).
    """

    name: str
    units: int
    slots: tuple[Slot, ...]
    members: int = 1
    member_slots: tuple[Slot, ...] = ()

    def placed(self) -> list[tuple[Slot, int]]:
        """Every slot, with how many members one of its blocks stands for."""
        return [*((slot, self.members) for slot in self.slots), *((slot, 1) for slot in self.member_slots)]


def permute(tensors: Tensors, symmetries: Sequence[Symmetry], orders: Mapping[str, Order]) -> dict[str, torch.Tensor]:
    """The same network with its units in ``orders``, by name of symmetry; those not named stay.

    >>> hidden = Symmetry("hidden", 2, (Slot("in", 0), Slot("out", 1)))
    >>> network = {"in": torch.tensor([[1.0], [2.0]]), "out": torch.tensor([[3.0, 4.0]])}
    >>> permute(network, [hidden], {"hidden": np.array([1, 0])})
    {'in': tensor([[2.],
            [1.]]), 'out': tensor([[4., 3.]])}
    """
    places = _places(symmetries)
    return {name: _permuted(name, tensor, places, orders) for name, tensor in tensors.items()}


def align(reference: Tensors, other: Tensors, symmetries: Sequence[Symmetry], sweeps: int = 100) -> dict[str, Order]:
    """Orders by which `permute` makes ``other`` most like ``reference``: greatest sum of products of their weights.

    One symmetry after the other is matched exactly, given the rest, by linear assignment (arXiv 2209.04836, algorithm
    1), until none improves or ``sweeps`` are over: a local optimum, since the whole is NP-hard. Unlike there, the order
    is fixed, and in the first sweep a tensor whose other axes still wait for their match has no say; so a network that
    is a mere permutation of the other is recovered in one sweep where its symmetries come inputs first. If the result
    is less like the reference than ``other`` as it came, all stays in place.

    Deterministic. A symmetry of n units costs products of all its tensors, an assignment of O(n^3) and 12 n^2 bytes
    a sweep. Raises `MismatchedModels` or `NonFiniteWeights` naming the tensor.
    """
    _check(reference, other, symmetries)
    places = _places(symmetries)
    still = {symmetry.name: np.arange(symmetry.units * symmetry.members) for symmetry in symmetries}
    orders: dict[str, Order] = {}
    for symmetry in symmetries:
        ready = [(slot, span) for slot, span in symmetry.placed() if _others(slot, places) <= orders.keys()]
        scores = _scores(reference, other, symmetry, ready or symmetry.placed(), places, still | orders)
        orders[symmetry.name] = _assign(scores, symmetry)
    for _ in range(sweeps):
        progress = False
        for symmetry in symmetries:
            scores = _scores(reference, other, symmetry, symmetry.placed(), places, orders)
            found, rows = _assign(scores, symmetry), np.arange(len(scores))
            gain = scores[rows, found].sum() - scores[rows, orders[symmetry.name]].sum()
            if gain > _PROGRESS * np.abs(scores).max() * len(scores):
                orders[symmetry.name], progress = found, True
        if not progress:
            break
    better = similarity(reference, permute(other, symmetries, orders)) > similarity(reference, other)
    return orders if better else still


def similarity(one: Tensors, other: Tensors) -> float:
    """Inner product of two networks with the same tensors, accumulated in float64."""
    return sum(float((one[name].double() * other[name].double()).sum()) for name in one)


def _places(symmetries: Sequence[Symmetry]) -> dict[str, list[tuple[str, Slot, int]]]:
    """For each tensor, the symmetries along its axes: name, slot, and members to a block."""
    places: dict[str, list[tuple[str, Slot, int]]] = {}
    for symmetry in symmetries:
        for slot, span in symmetry.placed():
            places.setdefault(slot.tensor, []).append((symmetry.name, slot, span))
    return places


def _others(slot: Slot, places: Mapping[str, list[tuple[str, Slot, int]]]) -> set[str]:
    """The symmetries along the other axes of a slot's tensor."""
    return {name for name, other, _ in places[slot.tensor] if other.axis != slot.axis}


def _permuted(
    name: str,
    tensor: torch.Tensor,
    places: Mapping[str, list[tuple[str, Slot, int]]],
    orders: Mapping[str, Order],
    but: int | None = None,
) -> torch.Tensor:
    """A tensor with its axes in their orders, except axis ``but``."""
    for symmetry, slot, span in places.get(name, ()):
        if symmetry in orders and slot.axis != but:
            blocks = orders[symmetry][::span] // span
            index = (blocks[:, None] * slot.width + np.arange(slot.width)).ravel()
            tensor = tensor.index_select(slot.axis, torch.from_numpy(index).to(tensor.device))
    return tensor


def _scores(
    reference: Tensors,
    other: Tensors,
    symmetry: Symmetry,
    placed: Sequence[tuple[Slot, int]],
    places: Mapping[str, list[tuple[str, Slot, int]]],
    orders: Mapping[str, Order],
) -> NDArray[np.float64]:
    """Similarity (n, n) of each member of the reference to each of the other's, float64; a unit's goes to its members.

    Each member bears an equal share of what its unit has in common, so that whole units sum up to their similarity.
    """
    count = symmetry.units * symmetry.members
    scores = np.zeros((count, count))
    for slot, span in placed:
        one = _rows(reference[slot.tensor], slot)
        two = _rows(_permuted(slot.tensor, other[slot.tensor], places, orders, but=slot.axis), slot)
        products = (one @ two.T).double().cpu().numpy() / span
        scores += products if span == 1 else np.kron(products, np.ones((span, span)))
    return scores


def _rows(tensor: torch.Tensor, slot: Slot) -> torch.Tensor:
    """One fp32 row for each block of ``slot``."""
    return tensor.float().movedim(slot.axis, 0).reshape(tensor.shape[slot.axis] // slot.width, -1)


def _assign(scores: NDArray[np.float64], symmetry: Symmetry) -> Order:
    """The order of greatest total score among those that keep the members of a unit together."""
    from scipy.optimize import linear_sum_assignment  # at module level it would slow every command down

    if symmetry.members == 1:
        return np.asarray(linear_sum_assignment(scores, maximize=True)[1], dtype=np.int64)
    members = symmetry.members
    blocks = scores.reshape(symmetry.units, members, symmetry.units, members).transpose(0, 2, 1, 3)
    inner = np.array([[linear_sum_assignment(block, maximize=True)[1] for block in row] for row in blocks])
    totals = np.take_along_axis(blocks, inner[..., None], axis=3).sum(axis=(2, 3))
    units = linear_sum_assignment(totals, maximize=True)[1]
    return np.concatenate([unit * members + inner[place, unit] for place, unit in enumerate(units)]).astype(np.int64)


def _check(reference: Tensors, other: Tensors, symmetries: Sequence[Symmetry]) -> None:
    if reference.keys() != other.keys():
        name = sorted(reference.keys() ^ other.keys())[0]
        raise MismatchedModels(f"Only one of the models to align has a tensor {name!r}.")
    for name, tensor in reference.items():
        if tensor.shape != other[name].shape:
            shapes = f"{tuple(tensor.shape)} and {tuple(other[name].shape)}"
            raise MismatchedModels(f"Tensor {name!r} of the models to align has shapes {shapes}.")
    for symmetry in symmetries:
        for slot, _ in symmetry.placed():
            if not (reference[slot.tensor].isfinite().all() and other[slot.tensor].isfinite().all()):
                raise NonFiniteWeights(
                    f"Tensor {slot.tensor!r} of a model to align holds NaN or infinity.",
                    hint="Look for a damaged checkpoint.",
                )
