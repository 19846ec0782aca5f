"""What a merge method is, and the list of those there are.

A method merges tensor by tensor. Its kernel is a plain function and comes in two forms, told by the decorator:

- `span_method`: the result is a linear combination of the inputs, and the kernel finds the coefficients from its
  parameters and, where it asks for them, the inputs' inner products. It sees no tensor.
- `tensor_method`: the kernel takes the inputs themselves and returns the merged tensor.

Kernels see no file, name, config or device policy; randomness comes from a generator that they are given.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kinship.arrays import Float64
from kinship.errors import InvalidConfig

if TYPE_CHECKING:
    import torch

Taxon = Literal["basic", "weighted", "subspace", "sparsified", "alignment", "optimised"]

# Third parties add methods by naming, under this entry-point group, a module that registers them when imported.
ENTRY_POINTS = "model_kinship.merge_methods"


class Combination(NamedTuple):
    """A tensor as ``base * base_model + sum_i models[i] * model_i``."""

    base: float
    models: tuple[float, ...]

    @classmethod
    def of_vectors(cls, coefficients: Sequence[float], has_base: bool) -> "Combination":
        """``sum_i c_i v_i``: of task vectors, added to the base, if there is one; else of the tensors themselves."""
        return cls(1.0 - sum(coefficients) if has_base else 0.0, tuple(coefficients))


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method. ``per_model``: each model has its own value. ``default`` None: required.

    Numbers must lie in ``low`` .. ``high``, both included. ``kind`` is what values are converted to.
    """

    name: str
    help: str
    default: float | bool | None = None
    per_model: bool = False
    kind: Literal["number", "integer", "boolean"] = "number"
    low: float = -float("inf")
    high: float = float("inf")


@dataclass(frozen=True)
class MergeMethod:
    """A registered method; exactly the traits that recipes, engine and documentation ask about.

    combine / merge: the kernel in span form, in tensor form, or both, of which ``outside_span(values)`` picks.
    needs_base: the recipe must name a base model. base_is_input: that base is itself one of the models merged, and
    comes first. on_task_vectors: the kernel works on models less the base, which is added to its result afterwards;
    where the base is optional and the recipe names none, on the tensors themselves, and the kernel is told by the
    keyword ``has_base``. needs_products: the span kernel wants the (p, p) inner products of its inputs. sees_base: the
    tensor kernel is given the base's tensor as the keyword ``base``. random: it is given a ``generator``. on_device:
    the tensor kernel is made of torch operations alone, so that its vectors may lie on an accelerator.
    taxon, formula, reference: its place in the survey's taxonomy (arXiv 2408.07666), for the documentation.
    """

    name: str
    parameters: tuple[Parameter, ...]
    combine: Callable[..., Combination] | None = None
    merge: "Callable[..., torch.Tensor] | None" = None
    outside_span: Callable[[Mapping[str, Any]], bool] | None = None
    min_models: int = 1
    max_models: int | None = None
    needs_base: bool = False
    base_is_input: bool = False
    on_task_vectors: bool = False
    needs_products: bool = False
    sees_base: bool = False
    random: bool = False
    on_device: bool = False
    taxon: Taxon = "basic"
    formula: str = ""
    reference: str = ""

    def in_span(self, values: Mapping[str, Any]) -> bool:
        """Whether the result with these parameter values is a linear combination of the inputs."""
        if self.combine is None or self.merge is None:
            return self.combine is not None
        return self.outside_span is None or not self.outside_span(values)

    def coefficients(self, products: Float64 | None, values: Mapping[str, Any], *, has_base: bool) -> Combination:
        """Run the span kernel for one tensor; ``products`` (p, p) where the method needs them."""
        if self.combine is None:
            raise TypeError(f"{self.name} does not stay in the span of its inputs")
        extra = {"has_base": has_base} if self.on_task_vectors and not self.needs_base else {}
        return self.combine(*([products] if self.needs_products else []), **values, **extra)

    def tensor(
        self,
        vectors: "torch.Tensor",
        values: Mapping[str, Any],
        *,
        base: "torch.Tensor | None" = None,
        has_base: bool | None = None,
        generator: "torch.Generator | None" = None,
    ) -> "torch.Tensor":
        """Run the tensor kernel on ``vectors`` (p, \\*shape) float32; returns the merged vector (\\*shape).

        Kernels may overwrite ``vectors``, and return a part of them. Only methods that see the base need it as
        ``base``; the others are told by ``has_base`` whether there is one.
        """
        has_base = base is not None if has_base is None else has_base
        if self.merge is None:
            raise TypeError(f"{self.name} has no kernel over tensors")
        extra: dict[str, Any] = {"has_base": has_base} if self.on_task_vectors and not self.needs_base else {}
        extra |= {"base": base} if self.sees_base else {}
        extra |= {"generator": generator} if self.random else {}
        return self.merge(vectors, **values, **extra)

    def parameter(self, name: str) -> Parameter:
        """The parameter called ``name``."""
        return next(parameter for parameter in self.parameters if parameter.name == name)


_METHODS: dict[str, MergeMethod] = {}


def span_method(
    name: str, *parameters: Parameter, **traits: Any
) -> Callable[[Callable[..., Combination]], Callable[..., Combination]]:
    """Register the decorated span kernel as the method ``name``; ``traits`` are the other fields of `MergeMethod`."""

    def register(kernel: Callable[..., Combination]) -> Callable[..., Combination]:
        _register(MergeMethod(name, parameters, combine=kernel, **traits))
        return kernel

    return register


def tensor_method(
    name: str, *parameters: Parameter, **traits: Any
) -> "Callable[[Callable[..., torch.Tensor]], Callable[..., torch.Tensor]]":
    """Register the decorated tensor kernel as the method ``name``; ``traits`` are other fields of `MergeMethod`."""

    def register(kernel: "Callable[..., torch.Tensor]") -> "Callable[..., torch.Tensor]":
        _register(MergeMethod(name, parameters, merge=kernel, **traits))
        return kernel

    return register


def _register(method: MergeMethod) -> None:
    known = _METHODS.get(method.name)
    if known is not None and _source(known) != _source(method):
        raise ValueError(f"there are two merge methods called {method.name!r}")
    _METHODS[method.name] = method


def _source(method: MergeMethod) -> str | None:
    """The file of its kernel: a module that is loaded again registers the same methods once more."""
    return inspect.getsourcefile(method.combine or method.merge or _register)


def methods() -> dict[str, MergeMethod]:
    """Every registered method by name; raises `InvalidConfig` naming the package whose methods cannot be loaded."""
    for name in sorted(_own()):
        _load(name)
    for plugin in entry_points(group=ENTRY_POINTS):
        _load_plugin(plugin)
    return dict(sorted(_METHODS.items()))


def get_method(name: str) -> MergeMethod:
    """The method called ``name``; of our own, no other is imported. Raises `InvalidConfig` naming those there are."""
    if name in _own():
        _load(name)
    if name not in _METHODS:
        known = methods()
        if name not in known:
            raise InvalidConfig(f"There is no merge method {name!r}.", hint=f"Use one of: {', '.join(known)}.")
    return _METHODS[name]


@cache
def _own() -> frozenset[str]:
    """The files of `merging.methods`, which are named after their methods."""
    return frozenset(module.name for module in iter_modules(import_module("merging.methods").__path__))


def _load(name: str) -> None:
    import_module(f"merging.methods.{name}")


def _load_plugin(plugin: EntryPoint) -> None:
    package = plugin.dist.name if plugin.dist else plugin.name
    try:
        plugin.load()
    except Exception as error:  # whatever importing someone else's code can end with
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise InvalidConfig(
            f"The merge methods of the package {package!r} ({plugin.value}) cannot be loaded"
            f" ({type(error).__name__}: {reason}).",
            hint=f"Update {package}, or uninstall it.",
        ) from error
