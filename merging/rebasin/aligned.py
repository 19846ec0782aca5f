"""Models seen with their units in the order that another model has: what a recipe's ``align`` makes of them."""

import hashlib
import threading
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.tied import tied_heads
from kinship.errors import MismatchedModels
from merging.rebasin.matching import Order, Symmetry, align, permute
from merging.rebasin.symmetries import llama_symmetries
from merging.recipe.alignment import AlignSettings


class AlignedCheckpoint(Checkpoint):
    """``source`` as the permutation of itself that is most like ``reference``, found when a tensor is first read.

    symmetries: which units of both may change places. Memory then: both models as they are stored, and scores of the
    widest symmetry; see `align`. Afterwards one tensor is kept. Several threads may read at once.
    """

    def __init__(self, source: Checkpoint, reference: Checkpoint, symmetries: list[Symmetry]) -> None:
        super().__init__(source.id, source.path, source.tensors, source.config, source.beside)
        self.source, self.reference = source, reference
        self._symmetries = symmetries
        self._placed = {slot.tensor: symmetry for symmetry in symmetries for slot, _ in symmetry.placed()}
        self._orders: Mapping[str, Order] | None = None
        self._kept: tuple[str, NDArray[np.uint8]] | None = None
        self._once = threading.Lock()

    @property
    def orders(self) -> Mapping[str, Order]:
        """The order of each symmetry's units, by its name."""
        if self._orders is None:
            one, other = ({name: each.tensor(name) for name in self._placed} for each in (self.reference, self.source))
            self._orders = align(one, other, self._symmetries)
        return self._orders

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        if name not in self._placed:
            self.source.read_into(name, start, view)
            return
        with self._once:
            if self._kept is None or self._kept[0] != name:
                moved = permute({name: self.source.tensor(name)}, self._symmetries, self.orders)[name]
                self._kept = name, moved.contiguous().reshape(-1).view(torch.uint8).numpy()
            stored, first = self._kept[1], start * self.tensors[name].dtype.itemsize
        view[:] = stored[first : first + len(view)].data

    @property
    def digest(self) -> str:
        """That of the source: what was read."""
        return self.source.digest

    def _fingerprint(self) -> str | None:
        parts = [each._fingerprint() for each in (self.source, self.reference)]
        names = [symmetry.name for symmetry in self._symmetries]
        return None if None in parts else hashlib.sha256(repr(("aligned", parts, names)).encode()).hexdigest()

    def close(self) -> None:
        """Close the files of the source."""
        self.source.close()


def aligned(models: Mapping[str, Checkpoint], settings: AlignSettings) -> dict[str, Checkpoint]:
    """``models`` by reference, all but the one that the others are aligned to seen in its order of units.

    Nothing is read yet. Raises `UnsupportedCheckpoint` for models that are not of Llama's type, `MismatchedModels`
    where tensors differ.
    """
    reference = models[settings.to]
    found = dict(models)
    for key, model in models.items():
        if model is not reference:
            names = _common(reference, model)
            shapes = {name: torch.empty(model.tensors[name].shape, device="meta") for name in names}
            heads = int(model.config.get("num_attention_heads") or 1)
            groups = int(model.config.get("num_key_value_heads") or heads)
            symmetries = llama_symmetries(shapes, heads, groups, settings.residual)
            found[key] = AlignedCheckpoint(model, reference, symmetries)
    return found


def cosine(one: Checkpoint, other: Checkpoint) -> float:
    """The cosine of the weights of two models with the same tensors, one block at a time, in float64."""
    products = np.zeros(3)
    for name in _common(one, other):
        for block in one.blocks(name):
            left, right = (each.floats(name, *block).astype(np.float64) for each in (one, other))
            products += (left @ right, left @ left, right @ right)
    return float(products[0] / np.sqrt(products[1] * products[2]))


def _common(one: Checkpoint, other: Checkpoint) -> list[str]:
    """The floating tensors of both, but heads that are the embedding again."""
    tied = tied_heads([one, other])
    for name in sorted((one.tensors.keys() ^ other.tensors.keys()) - tied.keys()):
        owner, lacking = (one, other) if name in one.tensors else (other, one)
        raise MismatchedModels(
            f"{owner.id} has the tensor {name!r}, {lacking.id} has not.", hint="Only models of one form can be aligned."
        )
    for name in one.tensors.keys() - tied.keys():
        if one.tensors[name].shape != other.tensors[name].shape:
            raise MismatchedModels(
                f"Tensor {name!r} has shape {list(one.tensors[name].shape)} in {one.id}, but "
                f"{list(other.tensors[name].shape)} in {other.id}.",
                hint="Only models of one form can be aligned.",
            )
    return [name for name, entry in one.tensors.items() if name not in tied and entry.dtype.is_floating_point]
