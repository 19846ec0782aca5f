"""A LoRA adapter extracted from a fine-tune, and what it lacks of it."""

import math
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from service.answers.base import Answer, Part, named

if TYPE_CHECKING:
    from merging.extraction.extract import Extracted
    from merging.extraction.layout import Saved


class ExtractedModule(Part):
    """One module with factors."""

    module: str
    """Its name in the live model."""
    shape: list[int]
    """Of its weight: out and in; of stacked experts their number first."""
    rank: int
    """Of its factors; of stacked experts the largest."""
    norm: float
    """Frobenius norm of its change."""
    error: float
    """Frobenius norm of what the factors lack of it."""


class ExtractedLayer(Part):
    """The modules of one layer together."""

    layer: str
    """Which one; or what kind of modules, outside the layers."""
    norm: float
    """Frobenius norm of their changes."""
    error: float
    """Frobenius norm of what their factors lack of these."""
    relative_error: float
    """One over the other."""


class ExtractedLora(Answer):
    """A PEFT adapter made of a fine-tune and its base."""

    schema_: Literal["kinship.extracted-lora/1"] = named("kinship.extracted-lora/1")
    out: str
    """Its folder."""
    model: str
    """The fine-tune."""
    base: str
    """The model that the adapter is for."""
    parameters: int
    """Numbers in the adapter."""
    relative_error: float
    """The share of the task vector, by its Frobenius norm, that the adapter lacks, as far as it could be read."""
    layers: list[ExtractedLayer]
    """In their order."""
    modules: list[ExtractedModule]
    """In the order of the files."""
    saved: list[str]
    """Tensors kept whole, since they changed and it was asked for."""
    left_out: dict[str, str]
    """Tensors that changed, or may have, and stay the base's, with the reason."""


def extract_adapter(
    model: str | Path,
    base: str | Path,
    out: Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    save: "Collection[Saved]" = (),
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractedLora:
    """Write the adapter ``out``: see `merging.extraction.extract.extract_lora`, also for its errors."""
    from kinship.checkpoints.references import local_places
    from kinship.output import require_writable
    from merging.extraction.extract import extract_lora
    from merging.extraction.peft_folder import foreign_in_adapter

    inputs = local_places([str(model), str(base)])
    require_writable(out, force=force, folder=foreign_in_adapter, inputs=inputs)
    found = extract_lora(model, base, out, rank=rank, energy=energy, save=save, force=force, progress=progress)
    modules = [
        ExtractedModule(module=one.module, shape=list(one.shape), rank=one.rank, norm=one.norm, error=one.error)
        for one in found.modules
    ]
    return ExtractedLora(
        out=str(out),
        model=str(model),
        base=str(base),
        parameters=found.parameters,
        relative_error=found.relative_error,
        layers=_by_layer(found.modules),
        modules=modules,
        saved=list(found.saved),
        left_out=found.left_out,
    )


def _by_layer(modules: "Iterable[Extracted]") -> list[ExtractedLayer]:
    from kinship.checkpoints.tensor_names import group_labels

    modules = list(modules)
    names = [f"{module.module}.weight" for module in modules]
    groups: dict[str, list[Extracted]] = {}
    for label, module in zip(group_labels(names, "layer"), modules, strict=True):
        groups.setdefault(label, []).append(module)
    found = []
    for label, members in groups.items():
        norm, error = (math.hypot(*(getattr(one, field) for one in members)) for field in ("norm", "error"))
        found.append(ExtractedLayer(layer=label, norm=norm, error=error, relative_error=error / norm if norm else 0.0))
    return found
