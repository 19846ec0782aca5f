"""A base model with a LoRA adapter on top, as a checkpoint; and kinship of adapters from their factors alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from kinship.alignment import Alignment
from kinship.checkpoint import Checkpoint
from kinship.gram import GramTable, gram_table
from kinship.lora import Adapter, LowRank
from kinship.safetensors_header import TensorEntry


class AdaptedCheckpoint(Checkpoint):
    """``base`` with ``adapter`` applied: changed tensors are computed block by block as they are read, in fp32."""

    def __init__(self, id: str, base: Checkpoint, adapter: Adapter) -> None:
        changed = adapter.low_rank.keys() | adapter.replaced.keys()
        tensors = {name: _as_fp32(entry) if name in changed else entry for name, entry in base.tensors.items()}
        super().__init__(id, base.path, tensors, base.config)
        self.base = base
        self.adapter = adapter

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        if name in self.adapter.replaced:
            count = len(view) // 4
            view[:] = self.adapter.replaced[name].flatten()[start : start + count].numpy().data.cast("B")
        elif name in self.adapter.low_rank:
            count = len(view) // 4
            weights = self.base.read(name, start, count).float()
            weights += _block(self.adapter.low_rank[name], start, count)
            view[:] = weights.numpy().data.cast("B")
        else:
            self.base.read_into(name, start, view)

    def close(self) -> None:
        """Close the files of the base too."""
        super().close()
        self.base.close()


def adapter_gram_table(base: Checkpoint, models: Sequence[AdaptedCheckpoint], names: Sequence[str]) -> GramTable:
    """The Gram table of adapters on one base, from their factors: no weight of the base is read where all are low-rank.

    ``<s1 B1 A1, s2 B2 A2> = s1 s2 sum((B1^T B2) * (A1 A2^T))``, in float64. Row and column 0, the base itself, stay
    zero: the metrics of task vectors do not need them. Tensors that an adapter replaces whole are compared densely.
    Cost per matrix (out, in) and pair of ranks r: (out + in) r^2.
    """
    size = len(models) + 1
    grams, sums = np.zeros((len(names), size, size)), np.zeros((len(names), size))
    for index, name in enumerate(names):
        changes = {
            i: model.adapter.low_rank[name] for i, model in enumerate(models, 1) if name in model.adapter.low_rank
        }
        for i, one in changes.items():
            sums[index, i] = one.scale * float(one.left.double().sum(dim=0) @ one.right.double().sum(dim=1))
            for j, other in changes.items():
                if j <= i:
                    grams[index, i, j] = grams[index, j, i] = low_rank_product(one, other)
    replaced = [index for index, name in enumerate(names) if any(name in model.adapter.replaced for model in models)]
    if replaced:
        dense = gram_table(base, models, Alignment(tuple(names[index] for index in replaced)))
        grams[replaced, 1:, 1:], sums[replaced, 1:] = dense.grams[:, 1:, 1:], dense.sums[:, 1:]
    counts = np.array([base.tensors[name].count for name in names], dtype=np.float64)
    return GramTable((base.id, *(model.id for model in models)), tuple(names), counts, sums, grams)


def low_rank_product(one: LowRank, other: LowRank) -> float:
    """Inner product of two low-rank changes of one matrix, from their factors."""
    left = one.left.double().T @ other.left.double()
    right = one.right.double() @ other.right.double().T
    return one.scale * other.scale * float((left * right).sum())


def _block(change: LowRank, start: int, count: int) -> torch.Tensor:
    """Elements ``start .. start + count`` of the flattened change, fp32, computed from the rows they lie in."""
    width = change.shape[1]
    first, last = start // width, -(-(start + count) // width)
    rows = change.scale * (change.left[first:last] @ change.right)
    return rows.flatten()[start - first * width :][:count]


def _as_fp32(entry: TensorEntry) -> TensorEntry:
    return replace(entry, dtype=torch.float32, nbytes=4 * entry.count)
