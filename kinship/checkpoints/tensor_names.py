"""Which layer of which stack a tensor belongs to, by its name; and groups of tensors by layer and kind of module."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kinship.checkpoints.module_kinds import KindOf, module_kind
from kinship.errors import InvalidConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")

GROUPINGS = ("layer", "module", "tensor")


class Layer(NamedTuple):
    """A layer of a stack, which is named by what stands before the layer's number. Models have several stacks where
    they have an encoder and a decoder, or see and read.
    """

    stack: str
    number: int


def layer_of(name: str) -> Layer | None:
    """The layer a tensor belongs to, by its name.

    >>> layer_of("model.decoder.layers.12.mlp.up_proj.weight")
    Layer(stack='model.decoder.layers', number=12)
    """
    match = _LAYER.search(name)
    return Layer(name[: match.start(1) - 1], int(match[1])) if match else None


def layer_index(name: str) -> int | None:
    """The place in its stack of the layer a tensor belongs to, by its name.

    >>> layer_index("model.layers.12.mlp.up_proj.weight"), layer_index("lm_head.weight")
    (12, None)
    """
    layer = layer_of(name)
    return layer.number if layer else None


def stack_labels(names: Iterable[str]) -> dict[str, str]:
    """What to call each of the stacks that tensor ``names`` speak of: by what tells them apart; nothing for one alone.

    >>> stack_labels(["model.encoder.layers.0.fc1.weight", "model.decoder.layers.0.fc1.weight"])
    {'model.decoder.layers': 'decoder ', 'model.encoder.layers': 'encoder '}
    """
    stacks = sorted({layer.stack for name in names if (layer := layer_of(name)) is not None})
    if len(stacks) < 2:
        return dict.fromkeys(stacks, "")
    parts = [stack.split(".") for stack in stacks]
    shared = next(place for place in range(100) if len({tuple(part[place : place + 1]) for part in parts}) > 1)
    short = [".".join(part[shared : shared + 1]) for part in parts]
    chosen = short if len(set(short)) == len(short) else [".".join(part[shared:]) for part in parts]
    return {stack: f"{label} " for stack, label in zip(stacks, chosen, strict=True)}


def layer_label(name: str, kind_of: KindOf = module_kind) -> str:
    """A tensor's layer for people: its index, or the kind of module outside the layers.

    >>> layer_label("model.layers.3.mlp.up_proj.weight"), layer_label("model.embed_tokens.weight")
    ('layer 3', 'embeddings')
    """
    index = layer_index(name)
    return kind_of(name) if index is None else f"layer {index}"


def group_labels(names: Sequence[str], by: str, kind_of: KindOf = module_kind) -> list[str]:
    """The group that each of ``names`` is in by one of `GROUPINGS`; where there are several stacks, with its stack.

    Raises `InvalidConfig` for an unknown grouping.

    >>> group_labels(["encoder.block.0.q.weight", "decoder.block.0.q.weight", "shared.weight"], "module")
    ['encoder attention q', 'decoder attention q', 'embeddings']
    """
    if by not in GROUPINGS:
        raise InvalidConfig(f"Tensors cannot be grouped by {by!r}.", hint=f"Use one of: {', '.join(GROUPINGS)}.")
    if by == "tensor":
        return list(names)
    labels = _owners(stack_labels(names))
    own = [next((label for owner, label in labels.items() if name.startswith(owner)), "") for name in names]
    return [
        stack + (layer_label(name, kind_of) if by == "layer" else kind_of(name))
        for stack, name in zip(own, names, strict=True)
    ]


def group_members(names: Sequence[str], by: str, kind_of: KindOf = module_kind) -> "dict[str, NDArray[np.bool_]]":
    """Which of ``names`` are in each group, as masks; layers in their order, other groups by name.

    Raises `InvalidConfig` for an unknown grouping.

    >>> {label: mask.tolist() for label, mask in group_members(["h.1.mlp", "wte", "h.1.ln_1"], "layer").items()}
    {'embeddings': [False, True, False], 'layer 1': [True, False, True]}
    """
    found = group_labels(names, by, kind_of)
    import numpy as np  # here, so that the command line knows the groupings without it

    labels = np.array(found)
    return {label: labels == label for label in sorted(set(found), key=_natural)}


def _owners(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of stacks by the shortest beginning of names that is a stack's alone: what lies beside its layers
    there is its own, too.
    """
    found = {}
    for stack, label in labels.items():
        parts = f"{stack}.".split(".")
        starts = (".".join(parts[:count]) + "." for count in range(1, len(parts)))
        others = [f"{other}." for other in labels if other != stack]
        owner = next(start for start in starts if not any(other.startswith(start) for other in others))
        found[owner] = label
    return found


def _natural(label: str) -> list[tuple[bool, int, str]]:
    """Sort key by which layer 10 comes after layer 9, and embeddings before all layers."""
    parts = re.split(r"(\d+)", label)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def base_tensor_of(parameter: str, names: Mapping[str, object]) -> str:
    """The one of the base's tensor ``names`` that holds a ``parameter`` of the live model; itself where none does.

    Files may lack the name of the body, or keep names that models of text and images, and heads, once had.

    >>> base_tensor_of("transformer.h.0.ln_1.weight", {"h.0.ln_1.weight": ...})
    'h.0.ln_1.weight'
    >>> base_tensor_of("model.language_model.norm.weight", {"language_model.model.norm.weight": ...})
    'language_model.model.norm.weight'
    """
    stored = (
        parameter,
        parameter.partition(".")[2],
        re.sub(r"^model\.language_model\.", "language_model.model.", parameter),
        f"language_model.{parameter}",
        re.sub(r"^lm_head\.", "embed_out.", parameter),
    )
    return next((name for name in stored if name in names), parameter)
