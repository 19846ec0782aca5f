"""Merging: from recipes to weights, as coefficients on the founders wherever the method allows it.

The public names are imported on first use, as those of `kinship` are: see PEP 562. `merging.registry.methods` lists the
merge methods; it has no place here, where `methods` is the package of their kernels.
"""

from typing import TYPE_CHECKING

from kinship.faces import lazy_face

if TYPE_CHECKING:
    from merging.merge import plan_summary as plan_summary
    from merging.merge import planned as planned
    from merging.merge import write_merge as write_merge
    from merging.offspring.basis import Basis as Basis
    from merging.offspring.span import Genome as Genome
    from merging.offspring.span import Span as Span
    from merging.offspring.span import open_span as open_span
    from merging.offspring.weights import TensorStream as TensorStream
    from merging.offspring.weights import materialise as materialise
    from merging.output.verify import Check as Check
    from merging.output.verify import verify_folder as verify_folder
    from merging.planning.plan import MergePlan as MergePlan
    from merging.planning.plan import plan_merge as plan_merge
    from merging.recipe.schema import Recipe as Recipe
    from merging.recipe.schema import load_recipe as load_recipe
    from merging.recipe.schema import parse_recipe as parse_recipe
    from merging.registry import Combination as Combination
    from merging.registry import MergeMethod as MergeMethod
    from merging.registry import Parameter as Parameter
    from merging.registry import get_method as get_method
    from merging.registry import span_method as span_method
    from merging.registry import tensor_method as tensor_method

_HOMES = {
    "Basis": "merging.offspring.basis",
    "Check": "merging.output.verify",
    "Combination": "merging.registry",
    "Genome": "merging.offspring.span",
    "MergeMethod": "merging.registry",
    "MergePlan": "merging.planning.plan",
    "Parameter": "merging.registry",
    "Recipe": "merging.recipe.schema",
    "Span": "merging.offspring.span",
    "TensorStream": "merging.offspring.weights",
    "get_method": "merging.registry",
    "load_recipe": "merging.recipe.schema",
    "materialise": "merging.offspring.weights",
    "open_span": "merging.offspring.span",
    "parse_recipe": "merging.recipe.schema",
    "plan_merge": "merging.planning.plan",
    "plan_summary": "merging.merge",
    "planned": "merging.merge",
    "span_method": "merging.registry",
    "tensor_method": "merging.registry",
    "verify_folder": "merging.output.verify",
    "write_merge": "merging.merge",
}

__all__ = sorted(_HOMES)


__getattr__ = lazy_face(__name__, _HOMES)
