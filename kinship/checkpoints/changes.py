"""What an adapter does to the tensors of its base, and to a head that is the embedding again."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.low_rank import LowRank, Start


@dataclass(frozen=True)
class Magnitudes:
    """The trained lengths (n,) that the rows of a changed matrix, or its columns, are brought to (DoRA), fp32."""

    lengths: NDArray[np.float32]
    of_columns: bool


@dataclass(frozen=True)
class Rows:
    """The rows ``ids`` (n,) of a tensor by their new ``values`` (n, width), fp32."""

    ids: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Stack:
    """Low-rank changes of the matrices (n, height, width) of a tensor: ``scale * left[i] @ right[i]``; fp32.

    left: (n, height, r). right: (n, r, width).
    """

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    scale: float

    def __getitem__(self, place: int) -> LowRank:
        return LowRank(self.left[place], self.right[place], self.scale)


@dataclass(frozen=True)
class Change:
    """What becomes of one tensor, in this order.

    replaced: another tensor in its place, fp32; buffers of integers as bytes. low_rank: added to it (since ``start``,
    see `kinship.checkpoints.low_rank.since_start`). stack: added to it, matrix by matrix. magnitudes: lengths that its
    rows or columns are brought to.
    added: a vector, to a bias. rows: replaced one by one.
    """

    replaced: NDArray[Any] | None = None
    low_rank: LowRank | None = None
    start: Start | None = None
    stack: Stack | None = None
    magnitudes: Magnitudes | None = None
    added: NDArray[np.float32] | None = None
    rows: Rows | None = None

    @property
    def is_low_rank(self) -> bool:
        """Whether ``low_rank`` is all of it."""
        return self.low_rank is not None and not self.is_dense

    @property
    def is_dense(self) -> bool:
        """Whether it is more than ``low_rank``."""
        return any(each is not None for each in (self.replaced, self.stack, self.magnitudes, self.added, self.rows))

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Everything it consists of, by name: arrays and plain values."""
        yield from _parts("", self)

    def same_as(self, other: "Change") -> bool:
        """Whether both do the same to the same tensor."""
        one, two = dict(self.parts()), dict(other.parts())
        return one.keys() == two.keys() and all(np.array_equal(part, two[name]) for name, part in one.items())


@dataclass(frozen=True)
class Adapter:
    """The ``changes`` to a base by its tensor names; all others stay.

    own_head: (head, embedding) of a tied base whose head is a tensor of its own with this adapter; before the changes
    it is the base's embedding.
    """

    changes: Mapping[str, Change]
    own_head: tuple[str, str] | None = None

    def untied(self, head: str, embedding: str) -> "Adapter":
        """The same with the ``head`` a tensor of its own, changed as the ``embedding`` is, which it was tied to."""
        follows = {head: self.changes[embedding]} if embedding in self.changes else {}
        return Adapter({**self.changes, **follows}, (head, embedding))


def settle_head(
    changes: Mapping[str, Change],
    head: str,
    embedding: str,
    copies: AbstractSet[str],
    *,
    keep_tied: bool,
    base: Checkpoint,
) -> Adapter:
    """The adapter that makes ``changes`` to a ``base`` whose ``head`` is tied to its ``embedding``, as peft has it.

    copies: names of the tensors that are replaced in a copy of their module; any other replaced one is stored where
    both are. keep_tied: the head follows what was trained of the embedding. The head stays tied where both come out
    alike.
    """
    one, other = changes.get(embedding, Change()), changes.get(head, Change())
    # What is written to where both are: the head's comes last.
    stored = [change.replaced for name, change in ((head, other), (embedding, one)) if name not in copies]
    shared = next((array for array in stored if array is not None), None)
    if shared is not None and _equals(base, embedding, shared):
        shared = None
    if embedding not in copies:
        one = replace(one, replaced=shared)
    if head not in copies:
        other = replace(other, replaced=shared)
        if keep_tied and embedding in copies:
            other = replace(other, replaced=one.replaced)
        if keep_tied and other.low_rank is None:
            other = replace(other, low_rank=one.low_rank)
        if other.rows is None:  # peft lets the head follow the tokens of the embedding unless it has its own
            other = replace(other, rows=one.rows)
    settled = {name: change for name, change in changes.items() if name not in (head, embedding)}
    nothing = Change()
    if not one.same_as(nothing):
        settled[embedding] = one
    if one.same_as(other):
        return Adapter(settled)
    if not other.same_as(nothing):
        settled[head] = other
    return Adapter(settled, (head, embedding))


def _equals(base: Checkpoint, name: str, values: NDArray[Any]) -> bool:
    flat = values.reshape(-1)
    return all(np.array_equal(base.floats(name, *block), flat[block[0] :][: block[1]]) for block in base.blocks(name))


def _parts(name: str, of: Any) -> Iterator[tuple[str, Any]]:
    for each in fields(of):
        value = getattr(of, each.name)
        if hasattr(value, "__dataclass_fields__"):
            yield from _parts(f"{name}{each.name}.", value)
        elif value is not None:
            yield f"{name}{each.name}", value
