"""The value of a parameter for one tensor: filters, and gradients over the layers, as in mergekit 0.1.5."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from kinship.groups import layer_index
from merging.recipe import Filtered, Scalar, Setting


@dataclass(frozen=True)
class Layers:
    """Where a tensor stands in the stack of ``count`` layers."""

    count: int

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Count the layers that tensor ``names`` speak of."""
        return cls(1 + max((index for name in names if (index := layer_index(name)) is not None), default=0))

    def position(self, name: str) -> float:
        """0 at the first layer, 1 at the last; 1 where there is one layer; 0 for tensors outside the layers."""
        index = layer_index(name)
        if index is None:
            return 0.0
        return index / (self.count - 1) if self.count > 1 else 1.0


def resolve(scopes: Sequence[Mapping[str, Setting]], key: str, name: str, position: float) -> Scalar | None:
    """The value of parameter ``key`` for tensor ``name``: the first scope with a matching value wins."""
    for scope in scopes:
        if key in scope:
            value = value_at(scope[key], name, position)
            if value is not None:
                return value
    return None


def value_at(setting: Setting, name: str, position: float) -> Scalar | None:
    """One setting's value for tensor ``name`` at ``position`` 0..1; None where no filter matches."""
    if not isinstance(setting, list):
        return setting
    if any(isinstance(part, Filtered) for part in setting):
        for part in setting:
            if isinstance(part, Filtered) and (part.filter in (None, "*") or str(part.filter) in name):
                return value_at(part.value, name, position)
        return None
    return gradient([part for part in setting if not isinstance(part, Filtered)], position)


def gradient(values: Sequence[Scalar], position: float) -> Scalar:
    """Piecewise linear over equally spaced ``values``; lists with booleans are stepped through.

    >>> gradient([0.0, 1.0, 0.0], 0.25)
    0.5
    """
    place = position * (len(values) - 1)
    index = min(int(place), len(values) - 2)
    if len(values) == 1 or any(isinstance(value, bool) for value in values):
        return values[int(place)]
    return values[index] + (place - index) * (values[index + 1] - values[index])
