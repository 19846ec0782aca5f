"""What a merge method is, and the list of those there are.

Every method here stays in the span of its inputs: per tensor, its result is a linear combination of the models (and
the base), and the kernel's work is to find the coefficients. A kernel is a plain function of the inputs' inner
products and its parameters; it sees no tensor, file or name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from kinship.errors import InvalidConfig
from kinship.gram import Float64


class Combination(NamedTuple):
    """A tensor as ``base * base_model + sum_i models[i] * model_i``."""

    base: float
    models: tuple[float, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method. ``per_model``: each model has its own value. ``default`` None: required."""

    name: str
    help: str
    default: float | bool | None = None
    per_model: bool = False


@dataclass(frozen=True)
class MergeMethod:
    """A registered method.

    needs_base: the recipe must name a base model. base_is_input: that base is itself one of the models merged, and
    comes first. needs_products: the kernel wants the (p, p) inner products of the models' tensors, which costs one
    Gram pass over the founders.
    """

    name: str
    kernel: Callable[..., Combination]
    parameters: tuple[Parameter, ...]
    min_models: int = 1
    max_models: int | None = None
    needs_base: bool = False
    base_is_input: bool = False
    needs_products: bool = False

    def combine(self, products: Float64 | None, values: dict[str, Any]) -> Combination:
        """Coefficients for one tensor, from inner products (p, p) where needed and parameter values by name."""
        return self.kernel(products, **values) if self.needs_products else self.kernel(**values)

    def parameter(self, name: str) -> Parameter:
        """The parameter called ``name``."""
        return next(parameter for parameter in self.parameters if parameter.name == name)


_METHODS: dict[str, MergeMethod] = {}


def merge_method(
    name: str, *parameters: Parameter, **traits: Any
) -> Callable[[Callable[..., Combination]], Callable[..., Combination]]:
    """Register the decorated kernel as the method ``name``; ``traits`` are the other fields of `MergeMethod`."""

    def register(kernel: Callable[..., Combination]) -> Callable[..., Combination]:
        _METHODS[name] = MergeMethod(name, kernel, parameters, **traits)
        return kernel

    return register


def methods() -> dict[str, MergeMethod]:
    """Every registered method by name."""
    import_module("merging.methods")
    return dict(sorted(_METHODS.items()))


def get_method(name: str) -> MergeMethod:
    """The method called ``name``; raises `InvalidConfig` naming those there are."""
    known = methods()
    if name not in known:
        raise InvalidConfig(f"There is no merge method {name!r}.", hint=f"Use one of: {', '.join(known)}.")
    return known[name]
