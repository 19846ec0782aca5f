"""A model permuted to be most like another, and how alike they are before and after."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from service.answers.base import Answer, named


class Aligned(Answer):
    """A model that was written with its units in another model's order."""

    schema_: Literal["kinship.aligned/1"] = named("kinship.aligned/1")
    out: str
    """Its folder."""
    model: str
    """The model that it is, with its units in their own order."""
    to: str
    """The model whose order they were brought to."""
    residual: bool
    """Whether the channels that all layers share were permuted, too."""
    before: float
    """Cosine of the weights of the two models."""
    after: float
    """The same, of the one that was written."""


def align_model(
    model: str | Path,
    to: str | Path,
    out: Path,
    *,
    residual: bool = True,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Aligned:
    """Write ``model`` permuted to be most like ``to`` into the folder ``out``; it computes what it did.

    Raises what `merging.rebasin.aligned.aligned` and `service.answers.merge.merge_models` raise.
    """
    from contextlib import ExitStack

    from kinship.checkpoints.opening import open_checkpoint
    from kinship.checkpoints.unified import unified
    from merging.rebasin.aligned import cosine
    from merging.recipe.schema import parse_recipe
    from service.answers.merge import merge_models

    content = {
        "merge_method": "passthrough",
        "models": [{"model": str(model)}],
        "align": {"to": str(to), "residual": residual},
    }
    merge_models(parse_recipe(content), out, force=force, progress=progress, told=told)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_checkpoint(each)) for each in (to, model, out)]
        reference, before, after = unified(opened)[0]
        found = cosine(reference, before), cosine(reference, after)
    return Aligned(out=str(out), model=str(model), to=str(to), residual=residual, before=found[0], after=found[1])
