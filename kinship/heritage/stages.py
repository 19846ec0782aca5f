"""How far a recovery is, told stage by stage."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kinship.checkpoints.checkpoint import Checkpoint

Item = TypeVar("Item")

Progress = Callable[[str, int, int, str], None]
"""Told (stage, done, in all, unit); the unit is ``B`` for bytes, else things are counted. A stage may come again."""


class Stages:
    """Tells a `Progress`, if there is one. Not for several threads at once."""

    def __init__(self, tell: Progress | None = None) -> None:
        self._tell = tell

    def bytes(self, stage: str, total: int) -> Callable[[int], None]:
        """A stage of ``total`` bytes: what is returned is told how many more are done."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if self._tell is not None:
                self._tell(stage, min(done, total), total, "B")

        advance(0)
        return advance

    def reading(self, stage: str, models: Sequence[Checkpoint], names: Sequence[str]) -> Callable[[int], None]:
        """A stage that reads the tensors ``names`` of ``models`` whole."""
        return self.bytes(stage, sum(model.tensors[name].nbytes for model in models for name in names))

    def each(self, stage: str, items: Sequence[Item]) -> Iterator[Item]:
        """``items``, counted as they are gone through."""
        for done, item in enumerate(items):
            if self._tell is not None:
                self._tell(stage, done, len(items), "")
            yield item
        if self._tell is not None:
            self._tell(stage, len(items), len(items), "")
