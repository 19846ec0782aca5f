"""RegMean++: Gram matrices of the inputs that a merge makes by itself, layer after layer."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from kinship.checkpoints.tensor_names import layer_of
from merging.data_driven.batches import Batches, require_repeatable
from merging.data_driven.grams import input_grams, no_linear_layer
from merging.data_driven.statistics import Statistics, load_statistics

Merge = Callable[[str, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Merges a tensor by its name: those of the models (p, \\*shape), and Gram matrices (p, in, in) if there are any."""


def grams_along(
    models: Sequence[nn.Module], batches: Sequence[Batches], merge: Merge, folder: Path, *, device: str = "cpu"
) -> list[dict[str, Statistics]]:
    """Of each model, `input_grams` of layers that stand on merged ones (Nguyen et al., arXiv 2508.03121, algorithm 1).

    What lies outside the layers, linear layers aside, is merged first; then for each layer in turn the inputs of every
    model's own layer are measured, its ``batches`` having gone through the merged layers before it, and it is merged in
    all of them; linear layers after the layers come last. ``models`` end as the merge, all of them. Their tensors are
    gone through by name, layers in the order in which they are registered.

    Returns, by the name of each weight, what has its matrix: files in ``folder``, read when asked for. Cost: a forward
    pass of all batches a layer. Memory: the models, and one layer's matrices.
    """
    for stream in batches:
        require_repeatable(stream)
    parameters = [dict(model.named_parameters()) for model in models]
    linear = {f"{name}.weight" for name, module in models[0].named_modules() if isinstance(module, nn.Linear)}
    if not linear & parameters[0].keys():
        raise no_linear_layer(models[0])
    stages: dict[object, list[str]] = {"before": []}
    for name in parameters[0]:
        layer = layer_of(name)
        stages.setdefault(layer or ("after" if name in linear else "before"), []).append(name)
    if "after" in stages:
        stages["after"] = stages.pop("after")  # it is the last, wherever it is registered
    found: list[list[Statistics]] = [[] for _ in models]
    for number, names in enumerate(stages.values()):
        wanted = linear.intersection(names)
        for place, (model, stream) in enumerate(zip(models, batches, strict=True)):
            if wanted:
                path = folder / f"{place}-{number}.safetensors"
                input_grams(model, stream, device=device, only=wanted).save(path)
                found[place].append(load_statistics(path))
        for name in names:
            vectors = torch.stack([own[name].detach() for own in parameters])
            own_grams = [next((each[name] for each in parts if name in each), None) for parts in found]
            grams = [gram for gram in own_grams if gram is not None]
            merged = merge(name, vectors, torch.stack(grams) if len(grams) == len(models) else None)
            with torch.no_grad():
                for own in parameters:
                    own[name].copy_(merged)
    return [{name: part for part in parts for name in part} for parts in found]
