"""Stacks of layers taken apart and put together: which tensors are in which layer, by their names."""

import re
from collections.abc import Mapping
from typing import TypeVar

from kinship.checkpoints.tensor_names import layer_index
from kinship.errors import InvalidConfig, MismatchedModels
from merging.recipe.parameters import Layers

T = TypeVar("T")

_BEFORE = re.compile(r"embed(?!_out)|\bwte\b|\bwpe\b")


def is_before_layers(name: str) -> bool:
    """Whether a tensor outside the layers belongs before them: embeddings do; final norm and head come after.

    >>> [is_before_layers(name) for name in ("model.embed_tokens.weight", "embed_out.weight", "model.norm.weight")]
    [True, False, False]
    """
    return bool(_BEFORE.search(name))


def renumbered(name: str, index: int) -> str:
    """The name of a layer's tensor in layer ``index``.

    >>> renumbered("model.layers.3.mlp.experts.3.w1", 12)
    'model.layers.12.mlp.experts.3.w1'
    """
    prefix, _, rest = _split(name)
    return f"{prefix}{index}{rest}"


def take_layers(tensors: Mapping[str, T], model: str, first: int, last: int, start: int) -> dict[str, T]:
    """``tensors`` of the layers ``first .. last - 1``, renumbered from ``start`` on, and those outside the layers.

    Raises `InvalidConfig` where the model has fewer layers and `MismatchedModels` where it has several stacks of them.
    """
    stacks = {_split(name)[0] for name in tensors if layer_index(name) is not None}
    if len(stacks) > 1:
        raise MismatchedModels(
            f"{model} has several stacks of layers ({', '.join(sorted(stacks))}); slices need one.",
            hint="Merge it whole: models: instead of slices:.",
        )
    count = Layers.of(tensors).count
    if last > count:
        raise InvalidConfig(
            f"The slice of {model} takes the layers [{first}, {last}], but it has {count} layers.",
            hint="layer_range is the first layer and the one after the last.",
        )
    found = {}
    for name, tensor in tensors.items():
        index = layer_index(name)
        if index is None:
            found[name] = tensor
        elif first <= index < last:
            found[renumbered(name, start + index - first)] = tensor
    return found


def _split(name: str) -> tuple[str, str, str]:
    """What stands before, as and after the layer's index."""
    index = layer_index(name)
    match = re.search(rf"(?:^|\.)(?:layers|layer|h|blocks|block)\.(?={index}\.)", name)
    assert match is not None
    return name[: match.end()], str(index), name[match.end() + len(str(index)) :]
