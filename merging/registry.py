"""What a merge method is, and the list of those there are.

A method merges tensor by tensor. Its kernel is a plain function and comes in two forms, told by the decorator:

- `span_method`: the result is a linear combination of the inputs, and the kernel finds the coefficients from its
  parameters and, where it asks for them, the inputs' inner products. It sees no tensor.
- `tensor_method`: the kernel takes the inputs themselves and returns the merged tensor.

Kernels see no file, name, config or device policy; randomness comes from a generator that they are given.
"""

import inspect
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import merging.methods
from kinship.arrays import Float64
from kinship.errors import InvalidConfig, nearest

if TYPE_CHECKING:
    import torch

Taxon = Literal["basic", "weighted", "subspace", "sparsified", "alignment", "optimised", "routing", "calibrated"]
Survey = Literal["alignment", "basic", "weighted", "subspace", "routing", "post-calibration", "other"]
Review = Literal["permutation", "direct", "magnitude", "activation", "optimisation", "lora", "moe"]
Base = Literal["none", "optional", "needed", "merged"]
Measure = Literal["fisher", "grams", "grams along", "entropy"]

# Third parties add methods by naming, under this entry-point group, a module that registers them when imported.
ENTRY_POINTS = "model_kinship.merge_methods"


class Measured(NamedTuple):
    """What was measured of p models for one tensor: ``values`` (p, \\*shape), and of each the root mean square over the
    whole ``model``, where the method asks for it.
    """

    values: "torch.Tensor"
    model: tuple[float, ...] = ()


MeasuredOf = Callable[[str], Measured | None]
"""What was measured for the tensor of a name; None where nothing was."""


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

    @property
    def argument(self) -> str:
        """What kernels call it: its name, or where Python reserves that, as it does ``lambda``, ``lambda_``."""
        return f"{self.name}_" if keyword.iskeyword(self.name) else self.name


@dataclass(frozen=True)
class MergeMethod:
    """A registered method; exactly the traits that recipes, engine and documentation ask about.

    combine / merge: the kernel in span form, in tensor form, or both, of which ``outside_span(values)`` picks. A kernel
    takes every parameter by its `Parameter.argument`, and beside them what the traits below give it; nothing else, and
    no ``**``: `TypeError` is raised where signature and traits disagree.

    base: the part that a base model has in it. ``none``: a recipe names no base, and the kernel sees none. ``merged``:
    it must name one of the models merged, which comes first. ``needed``: it must name one, which is none of those; the
    kernel works on task vectors (models less the base), and the base is added to its result afterwards. ``optional``:
    as ``needed`` where the recipe names one; else the kernel works on the models themselves; ``has_base`` tells it.

    needs_products: the span kernel wants, first, the (p, p) inner products of its inputs. random: the tensor kernel is
    given a ``generator``. measures: what is measured of each model on the recipe's ``data`` before anything is merged.
    Statistics (``fisher``; ``grams`` of inputs; those of inputs that the merge itself makes, layer after layer: ``grams
    along``) reach the tensor kernel as `Measured`, after its inputs, or as None where a tensor has none; ``entropy``
    finds the span kernel's weights. beside: files beside the weights are a part of its result. data: for people, what
    it needs to see. on_device: it is made of torch operations alone, so that its vectors may lie on an accelerator.
    module: of a method without a kernel, since what it makes is another architecture or more than one tensor at a time,
    where it is done. summary: one line for people; the first of the kernel's module where it is left out. taxon,
    formula, reference: its place in our order, for the documentation.
    survey, review: its class in the surveys arXiv 2408.07666 and 2503.08998, where it is not its taxon's usual one.
    """

    name: str
    parameters: tuple[Parameter, ...]
    combine: Callable[..., Combination] | None = None
    merge: "Callable[..., torch.Tensor] | None" = None
    outside_span: Callable[[Mapping[str, Any]], bool] | None = None
    min_models: int = 1
    max_models: int | None = None
    base: Base = "none"
    needs_products: bool = False
    random: bool = False
    measures: Measure | None = None
    beside: bool = False
    data: str = ""
    on_device: bool = False
    module: str = ""
    summary: str = ""
    taxon: Taxon = "basic"
    survey: Survey | None = None
    review: Review | None = None
    formula: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        if self.base not in get_args(Base):
            raise TypeError(f"base of {self.name} is {self.base!r}; one of {', '.join(get_args(Base))} was expected")
        told = ["has_base"] if self.base == "optional" else []
        if self.combine is not None:
            _require_signature(self, self.combine, int(self.needs_products), told)
        if self.merge is not None:
            tensors = 1 + int(self.has_statistics)
            _require_signature(self, self.merge, tensors, [*told, "generator"] if self.random else told)

    @property
    def has_statistics(self) -> bool:
        """Whether the tensor kernel is given what was measured."""
        return self.measures is not None and self.merge is not None

    @property
    def takes_whole_models(self) -> bool:
        """Whether it takes whole models on disk, in no search and no other recipe."""
        return self.beside or self.measures is not None

    @property
    def subtracts_base(self) -> bool:
        """Whether it works on task vectors where the recipe names a base model."""
        return self.base in ("needed", "optional")

    @property
    def needs_base(self) -> bool:
        """Whether the recipe must name a base model."""
        return self.base in ("needed", "merged")

    def in_span(self, values: Mapping[str, Any]) -> bool:
        """Whether the result with these parameter values is a linear combination of the inputs."""
        if self.combine is None or self.merge is None:
            return self.combine is not None
        return self.outside_span is None or not self.outside_span(values)

    def coefficients(self, products: Float64 | None, values: Mapping[str, Any], *, has_base: bool) -> Combination:
        """Run the span kernel for one tensor with ``values`` by parameter; ``products`` (p, p) where it needs them.

        Raises `TypeError` where the method has no such kernel, and what the kernel raises.
        """
        if self.combine is None:
            raise TypeError(f"{self.name} does not stay in the span of its inputs")
        return self.combine(*([products] if self.needs_products else []), **self._arguments(values, has_base))

    def tensor(
        self,
        vectors: "torch.Tensor",
        values: Mapping[str, Any],
        *,
        has_base: bool,
        generator: "torch.Generator | None" = None,
        measured: Measured | None = None,
    ) -> "torch.Tensor":
        """Run the tensor kernel on ``vectors`` (p, \\*shape) float32; returns the merged vector (\\*shape).

        Kernels may overwrite ``vectors``, and return a part of them. Raises `TypeError` where the method has no such
        kernel, and what the kernel raises.
        """
        if self.merge is None:
            raise TypeError(f"{self.name} has no kernel over tensors")
        extra = {"generator": generator} if self.random else {}
        statistics = [measured] if self.has_statistics else []
        return self.merge(vectors, *statistics, **self._arguments(values, has_base), **extra)

    def _arguments(self, values: Mapping[str, Any], has_base: bool) -> dict[str, Any]:
        found = {self.parameter(name).argument: value for name, value in values.items()}
        return found | ({"has_base": has_base} if self.base == "optional" else {})

    def parameter(self, name: str) -> Parameter:
        """The parameter called ``name``; raises `KeyError` where there is none."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(f"{self.name} has no parameter {name!r}")


def _require_signature(method: MergeMethod, kernel: Callable[..., Any], tensors: int, told: Sequence[str]) -> None:
    """Raise `TypeError` unless ``kernel``, after so many ``tensors``, takes the parameters and what it is ``told``.

    A default that it gives must be the parameter's.
    """
    declared = {parameter.argument: parameter.default for parameter in method.parameters} | dict.fromkeys(told, False)
    given = list(inspect.signature(kernel).parameters.values())[tensors:]
    taken = {str(argument.replace(annotation=argument.empty, default=argument.empty)) for argument in given}
    if taken != declared.keys():
        raise TypeError(
            f"the kernel of {method.name} takes ({', '.join(sorted(taken))}) beside its tensors;"
            f" ({', '.join(sorted(declared))}) was expected, by its parameters and traits"
        )
    for argument in given:
        if argument.default not in (argument.empty, declared[argument.name]):
            raise TypeError(
                f"the kernel of {method.name} has {argument.default!r} for {argument.name!r};"
                f" {declared[argument.name]!r} was expected, the parameter's default"
            )


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


def assembled_method(name: str, *parameters: Parameter, module: str, **traits: Any) -> None:
    """Register the method ``name``, which ``module`` does: it has no kernel that sees one tensor at a time."""
    _register(MergeMethod(name, parameters, module=module, **traits))


def _register(method: MergeMethod) -> None:
    known = _METHODS.get(method.name)
    if known is not None and _source(known) != _source(method):
        raise ValueError(f"there are two merge methods called {method.name!r}")
    _METHODS[method.name] = method


def _source(method: MergeMethod) -> str | None:
    """The file of its kernel: a module that is loaded again registers the same methods once more."""
    kernel = method.combine or method.merge
    return method.module if kernel is None else inspect.getsourcefile(kernel)


def methods() -> dict[str, MergeMethod]:
    """Every registered method by name; raises `InvalidConfig` naming the package whose methods cannot be loaded."""
    for module in sorted(set(_own().values())):
        _load(module)
    for plugin in entry_points(group=ENTRY_POINTS):
        _load_plugin(plugin)
    return dict(sorted(_METHODS.items()))


def get_method(name: str) -> MergeMethod:
    """The method called ``name``; of our own, no other is imported. Raises `InvalidConfig` naming those there are."""
    if name in _own():
        _load(_own()[name])
    if name not in _METHODS:
        known = methods()
        if name not in known:
            raise InvalidConfig(f"There is no merge method {name!r}.", hint=nearest(name, known))
    return _METHODS[name]


@cache
def _own() -> dict[str, str]:
    """The modules of `merging.methods` by the methods in them: the file of the same name, but for those listed."""
    return {
        module.name: module.name for module in iter_modules(merging.methods.__path__)
    } | merging.methods.SHARED_FILES


def _load(module: str) -> None:
    import_module(f"merging.methods.{module}")


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
