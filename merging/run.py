"""One merge from its recipe to its folder: what `kinship merge` does."""

from contextlib import ExitStack
from pathlib import Path

import torch

from kinship.alignment import Alignment, require_same_tensors
from kinship.checkpoint import Checkpoint
from kinship.gram import gram_table
from kinship.opening import open_checkpoint
from kinship.output import require_writable
from merging.folder import write_model_folder
from merging.materialise import cast, common_dtype, materialise
from merging.recipe import Recipe
from merging.span import Span


def open_span(models: list[Checkpoint], *, with_products: bool) -> Span:
    """The span of ``models`` (the first is its base), after checking that they hold the same tensors.

    ``with_products`` reads all weights once for their Gram table.
    """
    require_same_tensors(models[0], models[1:])
    names = tuple(models[0].tensors)
    table = gram_table(models[0], models[1:], Alignment(names)) if with_products else None
    return Span(tuple(model.id for model in models), names, table)


def run_merge(recipe: Recipe, output: Path, *, force: bool = False) -> Path:
    """Merge as ``recipe`` says and write the folder ``output``; returns it.

    Raises the errors of `open_checkpoint`, `Span.merge` and `write_model_folder`; nothing half-written remains.
    """
    recipe.check()
    require_writable(output, force=force)
    with ExitStack() as stack:
        models = [stack.enter_context(open_checkpoint(reference)) for reference in recipe.references]
        span = open_span(models, with_products=recipe.method.needs_products)
        genome = span.merge(recipe, {id: span.founder(id) for id in span.ids})

        def dtype_of(name: str) -> torch.dtype:
            stored = common_dtype(name, models)
            return getattr(torch, recipe.dtype) if recipe.dtype else stored

        write_model_folder(
            output,
            cast(materialise(genome, span.names, models), dtype_of),
            template=models[0],
            recipe=recipe,
            lineage={
                "schema": "kinship.lineage/1",
                "parents": [{"model": model.id, "digest": model.digest} for model in models],
                "recipe": recipe.to_dict(),
            },
            parents=[entry.model for entry in recipe.models],
            force=force,
        )
    return output
