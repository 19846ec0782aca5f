"""The value of a parameter for one tensor: filters, and gradients over the layers, as in mergekit 0.1.5."""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, StrictBool

from kinship.checkpoints.tensor_names import layer_of
from kinship.errors import InvalidConfig, KinshipWarning
from kinship.validation import Strict
from merging.registry import MergeMethod, Parameter

# Text such as '1e-1', which YAML does not take for a number, is one; text is never true or false.
Scalar = StrictBool | Annotated[float, Field(allow_inf_nan=False)]
FLOAT32_MAX = 3.4028234663852886e38
Gradient = Annotated[list[Scalar], Field(min_length=1)]


class Filtered(Strict):
    """A value for the tensors whose name contains ``filter``; ``*`` or none means all."""

    filter: str | None = Field(None, description="plain substring of tensor names")
    value: Scalar | Gradient = Field(description="a number, or a gradient over the layers")


Setting = Scalar | Gradient | Annotated[list[Filtered], Field(min_length=1)]
Scope = Mapping[str, Setting]


@dataclass(frozen=True)
class Layers:
    """Where a tensor stands in its stack of layers; ``counts``: how many layers each stack has."""

    counts: Mapping[str, int]

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Count the layers that tensor ``names`` speak of."""
        counts: dict[str, int] = {}
        for layer in filter(None, map(layer_of, names)):
            counts[layer.stack] = max(counts.get(layer.stack, 0), layer.number + 1)
        return cls(counts)

    @property
    def count(self) -> int:
        """Layers of the deepest stack; 1 where there is none."""
        return max(self.counts.values(), default=1)

    def position(self, name: str) -> float:
        """0 at the first layer of its stack, 1 at the last; 1 where it has one; 0 for tensors outside the layers."""
        layer = layer_of(name)
        if layer is None:
            return 0.0
        count = self.counts.get(layer.stack, self.count)
        return layer.number / (count - 1) if count > 1 else 1.0


def warn_of_filters(scopes: Iterable[Scope], names: Collection[str]) -> None:
    """Issue a `KinshipWarning` of each filter that is in none of the ``names``: it may be misspelt."""
    for key, setting in (item for scope in scopes for item in scope.items()):
        for part in setting if isinstance(setting, list) else []:
            wanted = part.filter if isinstance(part, Filtered) else None
            if wanted not in (None, "*") and not any(str(wanted) in name for name in names):
                warnings.warn(f"The filter {wanted!r} of {key!r} matches no tensor.", KinshipWarning, stacklevel=2)


def values_for(
    method: MergeMethod, inputs: Sequence[tuple[str, Sequence[Scope]]], name: str, position: float
) -> dict[str, Any]:
    """The values of all parameters of ``method`` for tensor ``name``, of those by model one an input.

    inputs: (label, scopes from the narrowest to the widest) of each model merged. Raises `InvalidConfig` naming model
    and tensor where a required parameter has no value.
    """
    values: dict[str, Any] = {}
    for parameter in method.parameters:
        found: list[Any] = []
        for label, scopes in inputs if parameter.per_model else inputs[:1]:
            value = resolve(scopes, parameter.name, name, position)
            if value is None and parameter.default is None:
                raise InvalidConfig(
                    f"The {method.name} merge gives {label} no {parameter.name!r} for tensor {name!r}.",
                    hint=f"Give {parameter.name}, or a last filter that matches every tensor.",
                )
            found.append(parameter.default if value is None else _converted(value, parameter))
        values[parameter.name] = found if parameter.per_model else found[0]
    return values


def check_setting(setting: Setting, parameter: Parameter, where: str) -> None:
    """Raise `InvalidConfig` where a value is not of the parameter's kind or out of its range."""
    boolean = parameter.kind == "boolean" or isinstance(parameter.default, bool)
    for value in _scalars(setting):
        if isinstance(value, bool) != boolean:
            wanted = "true or false" if boolean else "a number"
            raise InvalidConfig(f"{parameter.name!r} is {wanted}, not {value!r} (given for {where}).")
        if abs(value) > FLOAT32_MAX:  # sums of such would be infinite, and shares of them zero
            raise InvalidConfig(
                f"{parameter.name!r} is {value:g} (given for {where}), more than a float32 can hold.",
                hint="Give a smaller number.",
            )
        if parameter.kind == "integer" and value != int(value):
            raise InvalidConfig(f"{parameter.name!r} is a whole number, not {value!r} (given for {where}).")
        if not parameter.low <= value <= parameter.high:
            raise InvalidConfig(
                f"{parameter.name!r} is {value:g} (given for {where}).",
                hint=f"It lies between {parameter.low:g} and {parameter.high:g}, both included.",
            )


def _scalars(setting: Setting) -> Iterator[Scalar]:
    for part in setting if isinstance(setting, list) else [setting]:
        if isinstance(part, Filtered):
            yield from _scalars(part.value)
        else:
            yield part


def _converted(value: Scalar, parameter: Parameter) -> Scalar:
    return int(value) if parameter.kind == "integer" else value


def resolve(scopes: Sequence[Scope], key: str, name: str, position: float) -> Scalar | None:
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
    index = int(place)
    if any(isinstance(value, bool) for value in values):
        return values[index]
    part = place - index
    # As mergekit does: at a given value this is that value, to the last bit.
    return (1 - part) * values[index] + part * values[min(index + 1, len(values) - 1)]
